"""Time as an object that is passed in, so that tests move it by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import Any

import gevent
from gevent.event import AsyncResult, Event


class Clock:
    """The system's clock."""

    # Attributes, not methods: reading the time is one call of a C function.
    __slots__ = ("monotonic", "sleep", "time")

    def __init__(self) -> None:
        #: Returns seconds of a clock that is never set back.
        self.monotonic: Callable[[], float] = time.monotonic
        #: Returns seconds since 1970.
        self.time: Callable[[], float] = time.time
        #: Lets other greenlets run for so many seconds.
        self.sleep: Callable[[float], None] = gevent.sleep

    def now(self, zone: tzinfo) -> datetime:
        """Return the date and the time in a time zone."""
        return datetime.fromtimestamp(self.time(), zone)

    def wait(self, event: Event | AsyncResult[Any], timeout_s: float | None = None) -> bool:
        """Wait until the event is set; return False after `timeout_s` seconds without."""
        event.wait(timeout_s)
        return event.ready()

    def join(
        self, greenlets: Sequence[gevent.Greenlet[..., Any]], timeout_s: float | None = None
    ) -> None:
        """Wait until all greenlets have ended, at most for `timeout_s` seconds."""
        gevent.joinall(greenlets, timeout=timeout_s)


#: The default wherever no clock is passed in.
SYSTEM_CLOCK = Clock()
