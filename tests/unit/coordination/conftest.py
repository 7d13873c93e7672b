"""Workers with coordinators in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ollama_proxy.coordination import (
    BoxSettings,
    CoordinatorClient,
    Flow,
    QueueLimits,
    Ticket,
)
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import WITHOUT_RECORDS
from tests.rig.redis_server import RedisServer
from tests.rig.warm_start import Started, warm_start

LONGEST_S = 20.0


class Worker:
    """A worker with one box, and the coordinators that it started."""

    def __init__(self, directory: Path, *, can_start: bool = True) -> None:
        self.started: list[Started] = []
        self.can_start = can_start
        self._environ = os.environ | WITHOUT_RECORDS | {"STATE_DIRECTORY": str(directory)}
        self.client = CoordinatorClient(directory, workers=2, start=self._start)
        self.configure()

    def _start(self) -> Started | None:
        if not self.can_start:
            return None
        self.started.append(warm_start().start_coordinator(self._environ))
        return self.started[-1]

    def configure(self, slots: int = 1, **queue: float) -> None:
        self.client.configure(
            QueueLimits(**{"max_waiting": 10, **queue}), {"box1": BoxSettings(slots)}, "UTC"
        )

    def ask(self, *, call: Call | None = None, flow: Flow | None = None) -> Ticket:
        admission = self.client.begin(
            "id", flow or Flow("team"), tokens=10, about={"token": "team"}
        )
        return admission.acquire([("box1", "m")], call or Call(Timeouts()))

    @property
    def coordinator(self) -> int:
        """The process that serves."""
        return next(each.pid for each in self.started if each.poll() is None)


#: One Redis for the module.
shared_redis = module_fixture(RedisServer)


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(**options: bool) -> Worker:
        workers.append(Worker(tmp_path, **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.client.close()
        for process in worker.started:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
