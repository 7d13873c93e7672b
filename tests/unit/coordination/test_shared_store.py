"""Machines that share a Redis: coordinators as processes, with a state directory each,
and workers of theirs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ollama_proxy.coordination import (
    BoxSettings,
    CoordinatorClient,
    Flow,
    QueueLimits,
    Subject,
    Ticket,
    start_coordinator,
)
from ollama_proxy.coordination.shared_store import NAME_FILE, machine_name
from ollama_proxy.errors import RateLimited
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import WITHOUT_RECORDS
from tests.rig.redis_server import RedisServer
from tests.rig.warm_start import Started, warm_start

LONGEST_S = 30.0


class Machine:
    """One worker of a machine, whose coordinator has the Redis."""

    def __init__(
        self, directory: Path, redis: RedisServer, *, own_interpreter: bool = False
    ) -> None:
        directory.mkdir()
        config = directory / "config.yaml"
        config.write_text(f'state: {{url: "{redis.url}"}}\n', encoding="utf-8")
        config.chmod(0o600)
        environ = (
            os.environ
            | WITHOUT_RECORDS
            | {"STATE_DIRECTORY": str(directory), "OLLAMA_PROXY_CONFIG": str(config)}
        )
        self.started: list[subprocess.Popen[bytes] | Started] = []
        self._environ = environ
        self._start_process = (
            start_coordinator if own_interpreter else warm_start().start_coordinator
        )
        self.client = CoordinatorClient(directory, workers=1, start=self._start)
        self.client.configure(QueueLimits(), {"box1": BoxSettings(2)}, "UTC")

    def _start(self) -> subprocess.Popen[bytes] | Started:
        self.started.append(self._start_process(self._environ))
        return self.started[-1]

    def ask(self, *subjects: Subject) -> Ticket:
        admission = self.client.begin(
            "id", Flow("team", subjects=subjects), tokens=10, about={"token": "team"}
        )
        return admission.acquire([("box1", "m")], Call(Timeouts()))

    def take(self, count: int) -> list[Ticket]:
        tickets = [self.ask() for _ in range(count)]
        assert all(each.wait(LONGEST_S) for each in tickets)
        return tickets

    @property
    def coordinator(self) -> subprocess.Popen[bytes] | Started:
        return next(each for each in self.started if each.poll() is None)

    def end(self) -> None:
        self.client.close()
        for process in self.started:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


redis = function_fixture(lambda: RedisServer(password="redis-password-1"))


@pytest.fixture
def machines(redis: RedisServer, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    both = Machine(tmp_path / "one", redis), Machine(tmp_path / "two", redis)
    yield both
    for each in both:
        each.end()


def test_machines_share_slots_and_limits(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    held = one.take(1) + two.take(1)
    waiting = two.ask()
    assert not waiting.wait(1.0)
    for machine in machines:  # each tells of both
        wait_until(
            lambda each=machine: (
                [len(each.client.status().get(what, ())) for what in ("running", "waiting")]
                == [2, 1]
            )
        )
    held[0].release()
    assert waiting.wait(LONGEST_S)
    for each in (held[1], waiting):
        each.release()
    limits = Subject("token:team", {"requests_per_minute": 2})
    for machine in machines:
        passed = machine.ask(limits)
        assert passed.wait(LONGEST_S)
        passed.release()
    for machine in machines:
        with pytest.raises(RateLimited):
            machine.ask(limits).wait(LONGEST_S)


def test_killed_coordinator_leaves_its_slots_to_the_next_one(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    held = one.take(2)
    waiting = two.ask()
    assert not waiting.wait(0.5)
    coordinator = one.coordinator
    coordinator.kill()
    coordinator.wait()
    assert not waiting.wait(4.0)
    held[0].release()
    assert waiting.wait(LONGEST_S)


@pytest.mark.parametrize("happens", ["killed", "paused", "flushed"])
def test_lost_redis_fails_no_request_and_counts_are_exact_again(
    machines: tuple[Machine, Machine], redis: RedisServer, happens: str
) -> None:
    one, two = machines
    held = [*one.take(1), *two.take(1)]
    wait_until(
        lambda: one.client.status().get("machines") == two.client.status().get("machines") == 2
    )
    if happens == "flushed":
        redis.flush()
    else:
        redis.kill() if happens == "killed" else redis.pause()
        # Each machine grants half of two slots, and holds that one already.
        waiting = one.ask()
        assert not waiting.wait(4.0)
        held.pop(0).release()
        assert waiting.wait(LONGEST_S)
        held.insert(0, waiting)
        redis.start() if happens == "killed" else redis.resume()
        wait_until(lambda: not one.client.problems())
    late = two.ask()
    assert not late.wait(6.0)
    held[0].release()
    assert late.wait(LONGEST_S)


def test_machine_keeps_its_name(tmp_path: Path) -> None:
    name = machine_name(tmp_path)
    assert machine_name(tmp_path) == name
    assert (tmp_path / NAME_FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / NAME_FILE).write_text("../no name\n", encoding="ascii")
    assert machine_name(tmp_path) != name


def test_password_is_in_no_process_list(redis: RedisServer, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", redis, own_interpreter=True)
    try:
        machine.take(1)[0].release()
        command = Path(f"/proc/{machine.coordinator.pid}/cmdline").read_bytes()
        assert b"coordinator" in command and b"redis-password" not in command
    finally:
        machine.end()
