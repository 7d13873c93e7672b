"""Clocks of tests: one that is moved by hand, and one that does not wait."""

from __future__ import annotations

import heapq
import time
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


class SkippingClock(Clock):
    """The system's clock, but whoever sleeps or waits by it skips that time: for pauses, not for
    waiting for what comes from somebody else."""

    __slots__ = ("_skipped_s",)

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self.monotonic = lambda: time.monotonic() + self._skipped_s
        self.time = lambda: time.time() + self._skipped_s
        self.sleep = self._sleep

    def wait(self, event: Event | AsyncResult[Any], timeout_s: float | None = None) -> bool:
        """Return whether the event is set, after `timeout_s` seconds if not."""
        if not event.ready() and timeout_s is not None:
            self._sleep(timeout_s)
        return event.ready()

    def _sleep(self, seconds: float) -> None:
        gevent.sleep(0)
        self._skipped_s += seconds
