"""Exchanges and their attempts: what they wait for, and how they end; with a coordinator in
a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import gevent
import pytest

from ollama_proxy.coordination import Admission, Flow, Outcome, QueueLimits, Spent, Subject, Ticket
from ollama_proxy.coordination.admissions import WorkerRequests
from ollama_proxy.coordination.advances import MOST_AHEAD
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.kept_slots import KEPT_S
from ollama_proxy.errors import ClientGone, QueueFull, QueueTimeout, QuotaExceeded, RateLimited
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call
from tests.rig.deadline import wait_until
from tests.unit.coordination.conftest import LONGEST_S, Worker


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


class Direct:
    """A worker's requests and their coordinator in one process; `sent` has the
    frames of the worker."""

    def __init__(self, slots: int = 1) -> None:
        self.sent: list[Frame] = []
        self._session = Coordinator().open(lambda frame: self.requests.take(frame))
        self.requests = WorkerRequests(self._send, self._send, lambda: None)
        boxes = {"box1": {"slots": slots, "is_draining": False}}
        self._send(
            {"op": "settings", "queue": asdict(QueueLimits()), "boxes": boxes, "timezone": "UTC"}
        )

    def _send(self, frame: Frame) -> bool:
        self.sent.append(frame)
        self._session.handle(frame)
        return True

    def use_slot(self, flow: Flow, tokens: int = 5) -> Ticket:
        """A short request, from its beginning to its end."""
        admission = Admission(self.requests, "id", flow, 10, {})
        ticket = admission.acquire([("box1", "m")], Call(Timeouts()))
        assert ticket.wait(LONGEST_S)
        ticket.release(Outcome(gpu_s=0.01))
        admission.end(Spent(tokens))
        return ticket


@pytest.mark.parametrize(
    "limits", [{}, {"requests_per_minute": 10**6}], ids=["slots", "slots and limits"]
)
def test_requests_of_a_busy_flow_send_no_frames(limits: dict[str, float]) -> None:
    """They would cost as much as the rest of a short request."""
    worker = Direct()
    flow = Flow("team", subjects=(Subject("token:team", limits),) if limits else ())
    for _ in range(3):  # the first one loads the model, the second one is the first to ask for more
        worker.use_slot(flow)
    worker.sent.clear()
    for _ in range(MOST_AHEAD // 2):
        worker.use_slot(flow)
    assert worker.sent == []
    gevent.sleep(3 * KEPT_S)
    assert sorted(each["op"] for each in worker.sent) == ["release", *["used" for _ in limits]]


def test_end_that_no_coordinator_was_told_is_announced_once() -> None:
    worker, flow = (
        Direct(),
        Flow("team", subjects=(Subject("token:team", {"tokens_per_day": 1000}),)),
    )
    admissions = [Admission(worker.requests, "id", flow, 10, {}) for _ in range(2)]
    for each in admissions:
        assert each.acquire([], Call(Timeouts())).wait(LONGEST_S)
    worker.requests.has_stand_in = True  # it has not admitted them
    admissions[0].end(Spent(35))
    assert worker.requests.announce()["ended"] == []
    worker.requests.has_stand_in = False
    announcement = worker.requests.announce()
    assert sorted(announcement["exchanges"]) == sorted(
        (each.exchange, [("token:team", {"tokens_per_day": 1000})], 10) for each in admissions
    )
    assert [(end["exchange"], end["spent"]["tokens"]) for end in announcement["ended"]] == [
        (admissions[0].exchange, 35)
    ]
    assert worker.requests.announce()["ended"] == []


def test_what_a_lost_coordinator_admitted_is_forgotten() -> None:
    worker, flow = (
        Direct(),
        Flow("team", subjects=(Subject("token:team", {"requests_per_minute": 10**6}),)),
    )
    for _ in range(3):  # the second one is the first to ask for more
        worker.use_slot(flow)
    running = Admission(worker.requests, "id", flow, 10, {})
    assert running.is_admitted and worker.requests.advances
    worker.requests.forget_granted()
    assert running.advance is None
    assert not worker.requests.advances and not worker.requests.advances.report()
    assert not Admission(worker.requests, "id", flow, 10, {}).is_admitted


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
    flow = Flow(
        "team",
        subjects=(
            Subject("token:team", {"requests_per_minute": 5000, "tokens_per_minute": 10**6}),
        ),
    )
    if (second := time.monotonic() % 60) > 50:
        gevent.sleep(60 - second)  # into another minute, to compare what is left of one
    worker.client.report_box("box1", is_up=True, loaded=["m"])
    answered, left = 0, []
    for _ in range(60):
        ticket = worker.ask(flow=flow)
        answered += ticket.granted_s is not None
        assert ticket.wait(LONGEST_S)
        ticket.release(Outcome())
        assert (
            ticket.admission.allowance is not None
            and ticket.admission.allowance.requests is not None
        )
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
        assert (
            allowance is not None
            and allowance.requests is not None
            and allowance.tokens is not None
        )
        return 5000 - allowance.requests.remaining, 10**6 - allowance.tokens.remaining

    asked = 0

    def is_settled() -> bool:
        nonlocal asked
        asked += 1
        gevent.sleep(0.1)  # so that nothing is admitted ahead
        return charged() == (60 + asked, 60 * 25 + asked * 10)

    wait_until(is_settled)


def test_client_that_leaves_before_its_limits_have_answered_is_not_counted(
    make_worker: Callable[..., Worker],
) -> None:
    worker = make_worker()
    flow = Flow("team", subjects=(Subject("token:team", {"concurrent": 1}),))
    for leaves in (False, True, False):
        ticket = worker.ask(flow=flow)
        assert leaves or ticket.wait(LONGEST_S)
        ticket.release()
        ticket.admission.end()
