"""A clock that a test moves by hand."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import gevent
from gevent.event import AsyncResult, Event

from ollama_proxy.clock import Clock

#: Where it starts: seconds of the monotonic time, and how far the wall clock is ahead of it.
START_S, EPOCH_S = 1000.0, 1_700_000_000.0


class ManualClock(Clock):
    """Time that passes only in `advance`. It has to outlast what sleeps by it."""

    __slots__ = ("_alarms", "_numbers", "epoch_s", "now_s")

    def __init__(self) -> None:
        self.now_s, self.epoch_s = START_S, EPOCH_S
        #: Times at which events are set, in the order in which they were asked for if equal.
        self._alarms: list[tuple[float, int, Event]] = []
        self._numbers = count()
        self.monotonic = lambda: self.now_s
        self.time = lambda: self.now_s + self.epoch_s
        self.sleep = self._sleep

    def advance(self, seconds: float) -> None:
        """Let time pass: wake what sleeps or waits until then, each at its time, and let it run
        until it waits again."""
        until_s = self.now_s + seconds
        _run_others()
        while self._alarms and self._alarms[0][0] <= until_s:
            due_s, _, alarm = heapq.heappop(self._alarms)
            self.now_s = max(self.now_s, due_s)
            alarm.set()
            _run_others()
        self.now_s = until_s

    def set_time(self, seconds: float) -> None:
        """Set the wall clock, in seconds since 1970; the monotonic time stays."""
        self.epoch_s = seconds - self.now_s

    @property
    def sleeping(self) -> int:
        """Return how many greenlets sleep, or wait with a deadline."""
        return len(self._alarms)

    def wait(self, event: Event | AsyncResult[Any], timeout_s: float | None = None) -> bool:
        """Wait until the event is set; return False after `timeout_s` seconds without."""
        with self._alarm_in(timeout_s) as alarm:
            gevent.wait([event, alarm], count=1)
        return event.ready()

    def join(
        self, greenlets: Sequence[gevent.Greenlet[..., Any]], timeout_s: float | None = None
    ) -> None:
        """Wait until all greenlets have ended, at most for `timeout_s` seconds."""
        with self._alarm_in(timeout_s) as alarm:
            while (
                running := [each for each in greenlets if not each.ready()]
            ) and not alarm.is_set():
                gevent.wait([*running, alarm], count=1)

    def _sleep(self, seconds: float) -> None:
        with self._alarm_in(seconds) as alarm:
            alarm.wait()

    @contextmanager
    def _alarm_in(self, seconds: float | None) -> Iterator[Event]:
        """Yield an event that is set after so many seconds; None: never."""
        alarm = Event()
        if seconds is None:
            yield alarm
            return
        entry = (self.now_s + seconds, next(self._numbers), alarm)
        if seconds > 0:
            heapq.heappush(self._alarms, entry)
        else:
            alarm.set()
        try:
            yield alarm
        finally:
            if entry in self._alarms:
                self._alarms.remove(entry)
                heapq.heapify(self._alarms)


def _run_others() -> None:
    """Let all greenlets run that can."""
    gevent.idle()
