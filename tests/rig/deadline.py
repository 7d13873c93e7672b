"""Waiting for a condition with a deadline, so that no test sleeps and hopes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")

#: The first pause between two questions, and the longest, as a question may be a request.
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.001, 0.06

#: A longer pause means that the machine has stood still, and with it what is waited for.
_LONGEST_PAUSE_S = 0.25


def wait_until(
    predicate: Callable[[], T],
    seconds: float = 30,
    message: str | Callable[[], str] = "",
    *,
    sleep: Callable[[float], object] | None = None,
) -> T:
    """Return the first truthy value of ``predicate``, which is asked less often the longer it
    takes. Meanwhile the greenlets of the tests run, if this is their thread.

    A callable ``message`` is asked only when the wait has failed, so it can say what was seen
    last. Raises AssertionError when ``seconds`` have passed, without those in which the machine
    stood still; the predicate is always asked once more at the deadline.
    """
    left_s, sleep = seconds, sleep or _find_sleep()
    while True:
        asked_s = time.monotonic()
        value = predicate()
        if value:
            return value
        if left_s <= 0:
            text = message() if callable(message) else message
            raise AssertionError(f"{text or 'condition not met'} (waited {seconds:g} s)")
        paused_s = time.monotonic()
        sleep(min(_MOST_PAUSE_S, max(_FIRST_PAUSE_S, (seconds - left_s) / 4)))
        left_s -= paused_s - asked_s + min(time.monotonic() - paused_s, _LONGEST_PAUSE_S)


def _find_sleep() -> Callable[[float], object]:
    is_main = threading.current_thread() is threading.main_thread()
    return gevent.sleep if is_main else time.sleep


def wait_for_minute(seconds: float) -> None:
    """Until the minute of limits that are counted in memory has so many seconds left: at its edge,
    what was used begins to fade."""
    left = 60 - time.monotonic() % 60
    if left < seconds:
        time.sleep(left)
