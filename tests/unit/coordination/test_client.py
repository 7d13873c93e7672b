"""A worker's side: with a coordinator in a process of its own, without one, and with one
that is killed or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from ollama_proxy.coordination import (
    BoxSettings,
    CoordinatorClient,
    Flow,
    Outcome,
    QueueLimits,
    Spent,
    Subject,
    Ticket,
)
from ollama_proxy.coordination.client import REPLY_S, START_PATIENCE_S, START_S
from ollama_proxy.errors import ShuttingDown
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call
from tests.rig.deadline import wait_until
from tests.unit.coordination.conftest import LONGEST_S, Worker


def test_first_request_starts_the_coordinator(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    assert not worker.client.state
    ticket = worker.ask()
    assert ticket.wait(LONGEST_S)
    assert (ticket.box, worker.client.state) == ("box1", "coordinator")


def test_workers_share_slots_in_order(make_worker: Callable[..., Worker]) -> None:
    first, second = make_worker(), make_worker()
    holder = first.ask()
    assert holder.wait(LONGEST_S)
    waiting = second.ask()
    assert not waiting.wait(0.2)
    later = first.ask()
    assert not later.wait(0.2)
    assert (waiting.position, later.position) != (None, None)
    assert later.position is not None and later.position.place == 2
    holder.release()
    assert waiting.wait(LONGEST_S) and waiting.waited_s > 0.2
    assert not later.wait(0.1)
    status = first.client.status()
    assert [(row["running"], row["waiting"]) for row in status["boxes"]] == [(1, 1)]
    waiting.release()
    assert later.wait(LONGEST_S)


def test_killed_coordinator_is_replaced_and_told_what_is_held(
    make_worker: Callable[..., Worker],
) -> None:
    first, second = make_worker(), make_worker()
    held = first.ask()
    assert held.wait(LONGEST_S)
    leaving = second.ask()
    assert not leaving.wait(0.1)
    waiting = first.ask()
    assert not waiting.wait(0.1)
    os.kill(
        (first if any(each.poll() is None for each in first.started) else second).coordinator,
        signal.SIGKILL,
    )
    leaving.release()
    assert not waiting.wait(2.5)
    wait_until(lambda: first.client.state == second.client.state == "coordinator")
    assert [(row["running"], row["waiting"]) for row in first.client.status()["boxes"]] == [(1, 1)]
    held.release()
    assert waiting.wait(LONGEST_S)


@pytest.mark.parametrize("fails", ["never starts", "hangs"])
def test_worker_without_coordinator_grants_its_share(
    fails: str, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker(can_start=fails == "hangs")
    worker.configure(slots=4)
    tickets: list[Ticket] = []
    if fails == "hangs":
        tickets += [worker.ask() for _ in range(3)]
        assert all(each.wait(LONGEST_S) for each in tickets)
        process = worker.coordinator
        os.kill(process, signal.SIGSTOP)
    tickets += [worker.ask() for _ in range(5 - len(tickets))]
    began_s = time.monotonic()
    wait_until(lambda: worker.client.state == "own share")
    # One that hangs does not start.
    assert time.monotonic() - began_s < REPLY_S + START_PATIENCE_S - 2
    granted = [each for each in tickets if each.wait(0.05)]
    assert len(granted) == (3 if fails == "hangs" else 2)
    for each in granted[:2]:
        each.release()
    if fails == "hangs":
        os.kill(process, signal.SIGCONT)
    assert all(each.wait(LONGEST_S) for each in tickets[len(granted) :][:1])


def test_nothing_that_its_own_share_has_granted_is_used_without_the_coordinator(
    make_worker: Callable[..., Worker],
) -> None:
    """What the worker keeps for a moment, and what it has admitted in advance."""
    worker = make_worker(can_start=False)
    flow = Flow("team", subjects=(Subject("token:team", {"requests_per_minute": 10**6}),))

    while worker.client.state != "coordinator":
        ticket = worker.ask(flow=flow)
        assert ticket.wait(LONGEST_S)
        ticket.release(Outcome(gpu_s=0.01))
        ticket.admission.end(Spent(5))
        worker.can_start = True
        gevent.sleep(0.005)
    ticket = worker.ask(flow=flow)
    assert (ticket.granted_s, ticket.admission.is_admitted) == (None, False)
    assert ticket.wait(LONGEST_S)
    assert [row["running"] for row in worker.client.status()["boxes"]] == [1]


def test_coordinator_that_takes_long_to_start_is_started_once(tmp_path: Path) -> None:
    """On a busy machine, a second one would only make the first one slower."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    client = CoordinatorClient(tmp_path, workers=2, start=start)
    client.configure(QueueLimits(), {"box1": BoxSettings(1)}, "UTC")
    ticket = client.begin("id", Flow("team"), tokens=10, about={}).acquire(
        [("box1", "m")], Call(Timeouts())
    )
    try:
        assert not ticket.wait(3 * START_S)
        assert len(started) == 1
        started[0].kill()
        wait_until(lambda: len(started) == 2)
    finally:
        client.close()
        for process in started:
            process.kill()
            process.wait()


#: A coordinator of an older version.
OLD = """
import sys
from pathlib import Path
from ollama_proxy.coordination import coordinator, run_coordinator
coordinator.VERSION = "0.0.9"
run_coordinator(Path(sys.argv[1]))
"""


def test_coordinator_of_an_older_version_is_replaced_and_slots_stay_exact(
    make_worker: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of that version still has a slot; it announces it to the new coordinator
    like any other worker."""
    old = subprocess.Popen([sys.executable, "-c", OLD, str(tmp_path)])
    try:
        monkeypatch.setattr("ollama_proxy.coordination.link.VERSION", "0.0.9")
        first, second = make_worker(can_start=False), make_worker()
        held = first.ask()
        assert held.wait(LONGEST_S)
        monkeypatch.undo()
        waiting = second.ask()
        wait_until(lambda: old.poll() == 0)
    finally:
        old.kill()
        old.wait()
    wait_until(lambda: first.client.state == second.client.state == "coordinator")
    assert not waiting.wait(1.5)
    assert [(row["running"], row["waiting"]) for row in second.client.status()["boxes"]] == [(1, 1)]
    held.release()
    assert waiting.wait(LONGEST_S)


def test_worker_that_ends_refuses_what_waits(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    holder, waiting = worker.ask(), worker.ask()
    assert holder.wait(LONGEST_S)
    worker.client.refuse_waiting()
    with pytest.raises(ShuttingDown):
        waiting.wait(LONGEST_S)
    holder.release()


def test_coordinator_keeps_no_state_of_requests_that_ended(
    make_worker: Callable[..., Worker],
) -> None:
    worker = make_worker()
    for _ in range(100):
        ticket = worker.ask(flow=Flow("team", subjects=(Subject("token:team", {"concurrent": 5}),)))
        assert ticket.wait(LONGEST_S)
        ticket.release()
        ticket.admission.end()
    assert not worker.client._requests.tickets
    assert worker.client.status()["running"] == []
