"""A worker's side: with a coordinator in a process of its own, without one, and with one that is killed or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
    start_coordinator,
)
from ollama_proxy.coordination.client import REPLY_S, START_PATIENCE_S, START_S
from ollama_proxy.errors import ClientGone, QueueFull, QueueTimeout, QuotaExceeded, RateLimited, ShuttingDown
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call

LONGEST_S = 20.0


class Worker:
    """A worker with one box, and the coordinators that it started."""

    def __init__(self, directory: Path, *, can_start: bool = True) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self._environ = os.environ | {"STATE_DIRECTORY": str(directory)}
        begin = self._start if can_start else lambda: None
        self.client = CoordinatorClient(directory, workers=2, start=begin)
        self.configure()

    def _start(self) -> subprocess.Popen[bytes]:
        self.started.append(start_coordinator(self._environ))
        return self.started[-1]

    def configure(self, slots: int = 1, **queue: float) -> None:
        self.client.configure(QueueLimits(**{"max_waiting": 10, **queue}), {"box1": BoxSettings(slots)}, "UTC")

    def ask(self, *, call: Call | None = None, flow: Flow | None = None) -> Ticket:
        admission = self.client.begin("id", flow or Flow("team"), tokens=10, about={"token": "team"})
        return admission.acquire([("box1", "m")], call or Call(Timeouts()))

    @property
    def coordinator(self) -> int:
        """The process that serves."""
        return next(each.pid for each in self.started if each.poll() is None)


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


def wait_until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < ends_at
        gevent.sleep(0.01)


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


def test_client_that_leaves_is_out_of_the_queue(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    holder = worker.ask()
    assert holder.wait(LONGEST_S)
    call = Call(Timeouts())
    leaving, next_one = worker.ask(call=call), worker.ask()
    waiting = gevent.spawn(leaving.wait)
    gevent.sleep(0)
    call.leave()
    with pytest.raises(ClientGone):
        waiting.get(timeout=LONGEST_S)
    wait_until(lambda: len(worker.client.status()["waiting"]) == 1)
    holder.release()
    assert next_one.wait(LONGEST_S)


def test_killed_coordinator_is_replaced_and_told_what_is_held(make_worker: Callable[..., Worker]) -> None:
    first, second = make_worker(), make_worker()
    held = first.ask()
    assert held.wait(LONGEST_S)
    leaving = second.ask()
    assert not leaving.wait(0.1)
    waiting = first.ask()
    assert not waiting.wait(0.1)
    os.kill((first if any(each.poll() is None for each in first.started) else second).coordinator, signal.SIGKILL)
    leaving.release()
    assert not waiting.wait(2.5)
    wait_until(lambda: first.client.state == second.client.state == "coordinator")
    assert [(row["running"], row["waiting"]) for row in first.client.status()["boxes"]] == [(1, 1)]
    held.release()
    assert waiting.wait(LONGEST_S)


@pytest.mark.parametrize("fails", ["never starts", "hangs"])
def test_worker_without_coordinator_grants_its_share(fails: str, make_worker: Callable[..., Worker]) -> None:
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
    assert time.monotonic() - began_s < REPLY_S + START_PATIENCE_S - 2  # one that hangs does not start
    granted = [each for each in tickets if each.wait(0.05)]
    assert len(granted) == (3 if fails == "hangs" else 2)
    for each in granted[:2]:
        each.release()
    if fails == "hangs":
        os.kill(process, signal.SIGCONT)
    assert all(each.wait(LONGEST_S) for each in tickets[len(granted) :][:1])


def test_coordinator_that_takes_long_to_start_is_started_once(tmp_path: Path) -> None:
    """On a busy machine, a second one would only make the first one slower."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    client = CoordinatorClient(tmp_path, workers=2, start=start)
    client.configure(QueueLimits(), {"box1": BoxSettings(1)}, "UTC")
    ticket = client.begin("id", Flow("team"), tokens=10, about={}).acquire([("box1", "m")], Call(Timeouts()))
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


def test_slot_is_kept_for_the_next_request_of_its_kind(make_worker: Callable[..., Worker]) -> None:
    first, second = make_worker(), make_worker()
    for _ in range(2):  # the first one loads the model
        used = first.ask()
        assert used.wait(LONGEST_S)
        used.release(Outcome(gpu_s=1.0))
    again = first.ask()
    # It need not ask, and the coordinator sees one slot in use.
    assert again.granted_s is not None
    assert [row["running"] for row in first.client.status()["boxes"]] == [1]
    again.release(Outcome(gpu_s=1.0))
    waiting = second.ask()
    assert waiting.wait(LONGEST_S)
    other = first.ask(flow=Flow("other"))
    assert not other.wait(0.1)
    waiting.release(Outcome(gpu_s=1.0))
    assert other.wait(LONGEST_S)
    other.release()
    wait_until(lambda: first.client.status()["running"] == [])


def test_refusals_have_their_errors(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    worker.configure(max_waiting=1, max_wait_s=1.0)
    holder = worker.ask()
    assert holder.wait(LONGEST_S)
    waiting = worker.ask()
    assert not waiting.wait(0.1)
    with pytest.raises(QueueFull):
        worker.ask().wait(LONGEST_S)
    with pytest.raises(QueueTimeout):
        waiting.wait(LONGEST_S)
    holder.release()
    for limit, error in (("requests_per_minute", RateLimited), ("tokens_per_day", QuotaExceeded)):
        flow = Flow("team", subjects=(Subject("token:team", {limit: 1}),))
        passed = worker.ask(flow=flow)
        assert passed.wait(LONGEST_S)
        passed.release()
        passed.admission.end(Spent(1))
        with pytest.raises(error) as refused:
            worker.ask(flow=flow).wait(LONGEST_S)
        assert refused.value.retry_after_s


def test_busy_token_needs_no_answer_for_most_requests_and_is_charged_for_each(
    make_worker: Callable[..., Worker],
) -> None:
    worker, other = make_worker(), make_worker()
    flow = Flow("team", subjects=(Subject("token:team", {"requests_per_minute": 5000, "tokens_per_minute": 10**6}),))
    if (second := time.monotonic() % 60) > 50:
        gevent.sleep(60 - second)  # into another minute, to compare what is left of one
    worker.client.report_box("box1", is_up=True, loaded=["m"])
    answered, left = 0, []
    for _ in range(60):
        ticket = worker.ask(flow=flow)
        answered += ticket.granted_s is not None
        assert ticket.wait(LONGEST_S)
        ticket.release(Outcome())
        assert ticket.admission.allowance is not None and ticket.admission.allowance.requests is not None
        left.append(ticket.admission.allowance.requests.remaining)
        ticket.admission.end(Spent(25))
    assert answered > 40
    assert left[-1] <= 5000 - 60

    def charged() -> tuple[int, int]:
        ticket = other.ask(flow=flow)
        assert ticket.wait(LONGEST_S)
        ticket.release()
        ticket.admission.end(Spent(10))
        allowance = ticket.admission.allowance
        assert allowance is not None and allowance.requests is not None and allowance.tokens is not None
        return 5000 - allowance.requests.remaining, 10**6 - allowance.tokens.remaining

    asked = 0

    def is_settled() -> bool:
        nonlocal asked
        asked += 1
        gevent.sleep(0.1)  # so that nothing is admitted ahead
        return charged() == (60 + asked, 60 * 25 + asked * 10)

    wait_until(is_settled)


def test_client_that_leaves_before_its_limits_have_answered_is_not_counted(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    flow = Flow("team", subjects=(Subject("token:team", {"concurrent": 1}),))
    for leaves in (False, True, False):
        ticket = worker.ask(flow=flow)
        assert leaves or ticket.wait(LONGEST_S)
        ticket.release()
        ticket.admission.end()


def test_worker_that_ends_refuses_what_waits(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    holder, waiting = worker.ask(), worker.ask()
    assert holder.wait(LONGEST_S)
    worker.client.refuse_waiting()
    with pytest.raises(ShuttingDown):
        waiting.wait(LONGEST_S)
    holder.release()


def test_coordinator_keeps_no_state_of_requests_that_ended(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    for _ in range(100):
        ticket = worker.ask(flow=Flow("team", subjects=(Subject("token:team", {"concurrent": 5}),)))
        assert ticket.wait(LONGEST_S)
        ticket.release()
        ticket.admission.end()
    assert not worker.client.held
    assert worker.client.status()["running"] == []
