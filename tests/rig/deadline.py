"""Waiting for a condition with a deadline, so that no test sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")

_INTERVAL_S = 0.015


def wait_until(
    predicate: Callable[[], T],
    seconds: float = 10,
    message: str | Callable[[], str] = "",
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Return the first truthy value of ``predicate``, asked every 15 ms.

    A callable ``message`` is asked only when the wait has failed, so it can say what was seen
    last. Raises AssertionError when ``seconds`` have passed; the predicate is always asked
    once more at the deadline.
    """
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if late:
            text = message() if callable(message) else message
            raise AssertionError(f"{text or 'condition not met'} (waited {seconds:g} s)")
        sleep(_INTERVAL_S)


def wait_in_greenlet(predicate: Callable[[], T], seconds: float = 20, message: str = "") -> T:
    """`wait_until` in a process where greenlets must get their turn."""
    return wait_until(predicate, seconds, message, sleep=gevent.sleep)


def wait_for_minute(seconds: float) -> None:
    """Until the minute of limits that are counted in memory has so many seconds left: at its edge,
    what was used begins to fade."""
    left = 60 - time.monotonic() % 60
    if left < seconds:
        time.sleep(left)
