"""Machines that share a Redis, as processes: together they never exceed the slots, and one
that dies stops nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig.deadline import wait_until
from tests.rig.redis_machine import SLOTS
from tests.rig.redis_server import RedisServer

LEASE_S = 4.0

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The file in which the machines note what they got."""
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


@pytest.fixture
def start(redis_server: RedisServer, notes: Path) -> Iterator[Start]:
    """`start(name, greenlets, requests, hold_s)` starts a machine, which ends at the
    latest with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(name: str, greenlets: int, requests: int, hold_s: float) -> subprocess.Popen[bytes]:
        arguments = [
            redis_server.url,
            name,
            str(notes),
            *map(str, (greenlets, requests, hold_s, LEASE_S)),
        ]
        processes.append(
            subprocess.Popen([sys.executable, "-m", "tests.rig.redis_machine", *arguments])
        )
        return processes[-1]

    yield run
    for each in processes:
        each.kill()
        each.wait(10)


def read(notes: Path) -> list[tuple[str, str, str]]:
    """What happened (+ or -), to which machine, on which box."""
    return [tuple(line.split()) for line in notes.read_text(encoding="utf-8").splitlines()]  # type: ignore[misc]


def most_at_a_time(notes: Path) -> Counter[str]:
    """By box, how many slots were held at a time."""
    held, most = Counter[str](), Counter[str]()
    for what, _, box in read(notes):
        held[box] += 1 if what == "+" else -1
        most[box] = max(most[box], held[box])
    return most


def test_machines_together_use_all_slots_and_no_more(start: Start, notes: Path) -> None:
    machines = [start(name, 10, 9, 0.005) for name in ("first", "second", "third")]
    assert [each.wait(60) for each in machines] == [0, 0, 0]
    assert most_at_a_time(notes) == SLOTS
    assert Counter(name for what, name, _ in read(notes) if what == "+") == dict.fromkeys(
        ("first", "second", "third"), 90
    )


def test_slots_of_a_killed_machine_are_free_after_its_lease(start: Start, notes: Path) -> None:
    killed = start("killed", 5, 1, 300)
    wait_until(lambda: read(notes), 30)
    other = start("other", 3, 2, 0.01)
    # All requests want box1 first, and its only slot is held.
    time.sleep(1)
    assert not any(name == "other" for _, name, _ in read(notes))
    killed.kill()
    began = time.monotonic()
    wait_until(lambda: any(name == "other" for _, name, _ in read(notes)), LEASE_S + 2)
    assert time.monotonic() - began > LEASE_S / 3
    assert other.wait(30) == 0


def test_machine_that_was_paused_too_long_ends_its_requests_and_goes_on(
    start: Start, notes: Path
) -> None:
    paused = start("paused", 3, 4, 0.2)
    wait_until(lambda: read(notes), 30)
    paused.send_signal(signal.SIGSTOP)
    other = start("other", 3, 4, 0.01)
    assert other.wait(30) == 0
    paused.send_signal(signal.SIGCONT)
    assert paused.wait(30) == 0
    assert Counter(name for what, name, _ in read(notes) if what == "-") == {
        "paused": 12,
        "other": 12,
    }


@pytest.mark.parametrize("fault", ["flush", "cut"])
def test_requests_survive_what_happens_to_redis(
    start: Start, notes: Path, redis_server: RedisServer, fault: str
) -> None:
    machines = [start(name, 6, 12, 0.02) for name in ("first", "second")]
    wait_until(lambda: len(read(notes)) > 20, 60)
    getattr(redis_server, fault)()
    assert [each.wait(60) for each in machines] == [0, 0]
    assert Counter(name for what, name, _ in read(notes) if what == "-") == {
        "first": 72,
        "second": 72,
    }
