"""Sees the event loop stand still, from a thread of its own: a call that doesn't yield stops every
request of its worker, and afterwards nobody knows which one it was."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey

from ollama_proxy.telemetry import flush_log, format_location, note

#: Seconds between two signs of life.
BEAT_S = 0.25

#: Seconds without one after which the loop counts as blocked.
BLOCKED_S = 1.0

#: Seconds for which the longest lag is remembered, at least; at most twice as long.
LAG_S = 15.0

#: Innermost frames that are told.
FRAMES = 12

_start_thread = monkey.get_original("_thread", "start_new_thread")
_own_thread = monkey.get_original("_thread", "get_ident")
_sleep = monkey.get_original("time", "sleep")


class Watchdog:
    """Says in events.log that the loop is blocked, and where, and later for how long it was."""

    def __init__(self, write: Callable[..., None] | None = None) -> None:
        self._note_event = write or _note_at_once
        self._beat = time.monotonic()
        self._loop = 0
        #: Since when it has been blocked; None: it has not.
        self._blocked_since: float | None = None
        #: The longest lag of this period and of the last one, and when this one began.
        self._lag_s, self._last_lag_s, self._period_began = 0.0, 0.0, self._beat

    def start(self) -> None:
        """Begins; to be called in the thread of the loop."""
        self._loop = _own_thread()
        gevent.spawn(self._live)
        _start_thread(self._watch, ())

    def _live(self) -> None:
        while True:
            before, self._beat = self._beat, time.monotonic()
            if self._beat - self._period_began > LAG_S:
                self._last_lag_s, self._lag_s, self._period_began = self._lag_s, 0.0, self._beat
            self._lag_s = max(self._lag_s, self._beat - before - BEAT_S)
            gevent.sleep(BEAT_S)

    @property
    def lag_s(self) -> float:
        """The longest time that the loop was late in the last half minute, in seconds."""
        return max(self._lag_s, self._last_lag_s)

    def _watch(self) -> None:
        while True:
            _sleep(BEAT_S)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """One look at the time of the last sign of life."""
        beat = self._beat
        if self._blocked_since is None:
            if now - beat > BLOCKED_S:
                self._blocked_since = beat
                # Places in the code, never values: those may be a prompt or a token.
                frame: Any = sys._current_frames().get(self._loop)
                places: list[str] = []
                while frame is not None and len(places) < FRAMES:
                    code = frame.f_code
                    places.append(format_location(code.co_filename, frame.f_lineno, code.co_name))
                    frame = frame.f_back
                blocked_ms = round((now - beat) * 1000)
                self._note_event(
                    "ERROR", "event_loop_blocked", blocked_ms=blocked_ms, where=places[::-1]
                )
        elif beat > self._blocked_since:
            blocked_ms = round((beat - self._blocked_since) * 1000)
            self._blocked_since = None
            self._note_event("WARNING", "event_loop_free", blocked_ms=blocked_ms)


def _note_at_once(level: str, event: str, **fields: object) -> None:
    """The writer's own turn would only come when the loop is free again."""
    note(level, event, **fields)
    flush_log()
