"""A machine of several that share a Redis, as a process: asks for slots in many
greenlets, and notes what it got.

    python -m tests.rig.redis_machine URL NAME FILE GREENLETS REQUESTS HOLD_S LEASE_S

For each slot it appends `+ NAME BOX` to the file when it is granted, and `- NAME BOX` before it is
released. It ends when every greenlet has made its requests; then it leaves the other machines.
"""

from __future__ import annotations

# ruff: noqa: E402
if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import AsyncResult

from ollama_proxy.coordination.redis_scheduler import RedisScheduler
from ollama_proxy.coordination.redis_store import connect_redis
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.state import Decision, Grant, Outcome, Request, StateUnavailable

#: Of each box.
SLOTS = {"box1": 1, "box2": 2}
TICK_S = 0.1


class Machine:
    """The scheduler, and greenlets that wait for its decisions."""

    def __init__(self, url: str, name: str, path: str, lease_s: float) -> None:
        self._name = name
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._waiting: dict[str, AsyncResult[str]] = {}
        self._scheduler = RedisScheduler(
            connect_redis(url), name, QueueLimits(), self._take, lease_s=lease_s, tick_s=TICK_S
        )

    def run(self, greenlets: int, requests: int, hold_s: float) -> None:
        self._scheduler.start()
        for box, slots in SLOTS.items():
            self._try(partial(self._scheduler.set_box, box, 0, slots=slots))
        ticks = gevent.spawn(self._tick)
        workers = [
            gevent.spawn(self._work, number, requests, hold_s) for number in range(greenlets)
        ]
        gevent.joinall(workers, raise_error=True)
        ticks.kill()
        self._scheduler.close()

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_S)
            try:
                self._take(self._scheduler.tick(0))
            except StateUnavailable:
                continue

    def _take(self, decisions: list[Decision]) -> None:
        for each in decisions:
            assert isinstance(each, Grant), each
            self._note("+", each.box)
            self._waiting.pop(each.request.id).set(each.box)

    def _work(self, worker: int, requests: int, hold_s: float) -> None:
        for number in range(requests):
            boxes = (("box1",), ("box2",), ("box1", "box2"))[number % 3]
            request = Request(
                f"{worker}-{number}", str(worker), tuple((box, "model") for box in boxes)
            )
            granted = self._waiting[request.id] = AsyncResult()
            self._try(partial(self._scheduler.acquire, request, 0))
            box = granted.get(timeout=60)
            time.sleep(hold_s)
            self._note("-", box)
            self._try(partial(self._scheduler.release, request.id, 0, Outcome(gpu_s=hold_s)))

    def _try(self, call: Callable[[], list[Decision]]) -> None:
        """Does something as soon as Redis can be used."""
        while True:
            try:
                return self._take(call())
            except StateUnavailable:
                time.sleep(TICK_S)

    def _note(self, what: str, box: str) -> None:
        os.write(self._file, f"{what} {self._name} {box}\n".encode())


if __name__ == "__main__":
    url, name, path, greenlets, requests, hold_s, lease_s = sys.argv[1:]
    Machine(url, name, path, float(lease_s)).run(int(greenlets), int(requests), float(hold_s))
