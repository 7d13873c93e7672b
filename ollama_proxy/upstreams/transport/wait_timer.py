"""One timer for all waits of a worker: one for each wait would cost more than the receive it guards."""

from __future__ import annotations

import time
from typing import Any

import gevent
import gevent.event
from gevent.hub import Waiter

#: How late a wait may be ended, in seconds.
TICK_S = 0.25


class WaitTimer:
    """Ends waits at their time, at most a quarter of a second late."""

    def __init__(self) -> None:
        self._waiting: dict[Waiter[bool], float] = {}
        self._busy = gevent.event.Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._closed = False

    def close(self) -> None:
        """Ends its greenlet as soon as nothing waits; a later wait starts another one."""
        self._closed = True
        self._busy.set()

    def wait(self, watcher: Any, until: float) -> bool:
        """Waits for an event of a watcher of the loop; returns False if the monotonic time `until` came first."""
        waiter: Waiter[bool] = Waiter(gevent.get_hub())
        self._waiting[waiter] = until
        if len(self._waiting) == 1:
            if self._greenlet is None:
                self._greenlet = gevent.spawn(self._run)
            self._busy.set()
        watcher.start(waiter.switch, True)
        try:
            return waiter.get()
        finally:
            watcher.stop()
            del self._waiting[waiter]

    def _run(self) -> None:
        # Only the loop itself may switch to a waiting greenlet; a waiter that was woken meanwhile ignores it.
        wake = gevent.get_hub().loop.run_callback
        while self._waiting or not self._closed:
            self._busy.wait()
            gevent.sleep(TICK_S)
            now = time.monotonic()
            for waiter, until in self._waiting.items():
                if until <= now:
                    wake(waiter.switch, False)
            if not (self._waiting or self._closed):
                self._busy.clear()
        self._greenlet = None
