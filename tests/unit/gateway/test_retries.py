"""When a request is tried again, where, after which wait, and when it is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import gevent
import pytest

from ollama_proxy.coordination import BoxSettings, CoordinatorClient, Flow, QueueLimits
from ollama_proxy.coordination import client as client_module
from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.errors import (
    BadRequest,
    ClientGone,
    GatewayError,
    PromptTooLong,
    ShuttingDown,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.gateway.draining import Lifecycle
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.retries import (
    LONGEST_PAUSE_S,
    Attempts,
    RefusedReply,
    RunningAttempt,
    forward_to,
    open_there,
    wait_open,
)
from ollama_proxy.hub import Content, Done, Event
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams import read_all
from ollama_proxy.upstreams.base import EventStream, Reply, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.model_index import Fleet
from ollama_proxy.upstreams.fleet.node import Node
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row
from tests.unit.upstreams.stock import node

M = "m:latest"


class WaitingCall(Call):
    """A call whose pauses take no time but that of the test's clock."""

    def __init__(self, clock: ManualClock, timeouts: Timeouts) -> None:
        super().__init__(timeouts, clock)
        self.clock: ManualClock = clock
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        """See Call.pause."""
        self.pauses.append(round(seconds, 9))
        self.clock.advance(seconds)
        self.check()


class Scene:
    """A fleet, one exchange, and what each attempt comes to: an error that is
    raised, or an answer."""

    def __init__(self, clock: ManualClock, *nodes: Node, total_s: float = 3600.0) -> None:
        self.fleet = Fleet(nodes, clock=clock)
        self.call = WaitingCall(clock, Timeouts(total_s=total_s))
        self.exchange = Exchange("id", "POST", "/api/chat", "127.0.0.1", NATIVE, self.call)
        self.asked: list[str] = []
        self.outcomes: Iterator[Any] = iter(())
        route = self.fleet.find("m")
        assert route is not None
        self.route = route

    def open(self, *outcomes: Any) -> Any:
        """What a request comes to whose attempts have these outcomes."""
        self.outcomes = iter(outcomes)
        return wait_open(
            Attempts(self.fleet, self.route, self.exchange, Lifecycle()).open(self.call, self._ask)
        )

    def _ask(self, one: Node, own: str) -> Any:
        self.asked.append(one.name)
        outcome = next(self.outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def failed(self, *outcomes: Any) -> GatewayError:
        """The error that a request ends with."""
        with pytest.raises(GatewayError) as raised:
            self.open(*outcomes)
        return raised.value

    @property
    def in_flight(self) -> list[int]:
        """Places that are taken on each node."""
        return [one.in_flight for one in self.fleet.nodes]


def boxes(clock: ManualClock, count: int = 3) -> list[Node]:
    return [node(f"box{number}", "m", clock=clock) for number in range(1, count + 1)]


def provider(clock: ManualClock) -> Node:
    return node("deepseek", "m", kind="deepseek", clock=clock)


def slow_connect() -> UpstreamConnect:
    error = UpstreamConnect()
    error.took_s = 3.0
    return error


class Body:
    """A reply with these parts; a failure is raised again by every further read."""

    def __init__(
        self,
        status: int,
        headers: tuple[tuple[str, str], ...] = (),
        parts: Sequence[bytes | GatewayError] = (),
    ) -> None:
        self.status, self.headers, self.is_closed = status, headers, False
        self._parts = [*parts, b""]

    def read_some(self, wait_s: float | None = None) -> bytes:
        """See Reply.read_some."""
        part = self._parts[0]
        if isinstance(part, GatewayError):
            raise part
        if part:
            self._parts.pop(0)
        return part

    def close(self) -> None:
        """See Reply.close."""
        self.is_closed = True


def refused_reply(status: int) -> RefusedReply:
    return RefusedReply(cast(Reply, Body(status)), status)


# --- One attempt ----------------------------------------------------------------------------------


def test_an_answer_needs_one_attempt_and_says_nothing_of_it(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    assert scene.open("answer") == "answer"
    assert (len(scene.asked), scene.exchange.attempts, scene.exchange.upstream) == (
        1,
        (),
        scene.asked[0],
    )
    assert sum(scene.in_flight) == 1
    scene.exchange.finish()
    assert sum(scene.in_flight) == 0


NEVER: dict[str, BaseException] = {
    "the client's fault": BadRequest(),
    "400": UpstreamRefused(400, "no"),
    "403": UpstreamRefused(403, "no"),
    "404": UpstreamRefused(404, "no"),
    "413": UpstreamRefused(413, "no"),
    "501": UpstreamRefused(501, "no"),
    "prompt too long": PromptTooLong("too long"),
    "our key": UpstreamAuthError(),
    "quota used up": UpstreamRefused(429, "no", final=True),
    "too slow": UpstreamTimeout(),
    "cut": UpstreamCut(),
    "client gone": ClientGone(),
}


@pytest.mark.parametrize("case", NEVER)
def test_what_another_attempt_would_not_mend_or_do_twice_is_not_tried_again(
    clock: ManualClock, case: str
) -> None:
    scene = Scene(clock, *boxes(clock))
    with pytest.raises(type(NEVER[case])):
        scene.open(NEVER[case])
    assert (len(scene.asked), scene.call.pauses, scene.exchange.attempts) == (1, [], ())
    assert scene.in_flight == [0, 0, 0]


@pytest.mark.parametrize(
    "error", [gevent.GreenletExit(), KeyError("x")], ids=["worker stops", "our own fault"]
)
def test_a_place_is_given_back_whatever_happens(clock: ManualClock, error: BaseException) -> None:
    scene = Scene(clock, *boxes(clock))
    with pytest.raises(type(error)):
        scene.open(error)
    assert scene.in_flight == [0, 0, 0]


# --- Elsewhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 504])
def test_U10_a_failure_goes_to_one_other_node(clock: ManualClock, status: int) -> None:
    scene = Scene(clock, *boxes(clock))
    assert scene.open(UpstreamRefused(status, "no"), "answer") == "answer"
    first, second = scene.asked
    assert first != second
    assert scene.exchange.attempts == (f"{first}: {status}", f"{second}: ok")
    assert (scene.call.pauses, sum(scene.in_flight)) == ([], 1)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_U10_a_second_failure_is_the_answer(clock: ManualClock, status: int) -> None:
    scene = Scene(clock, *boxes(clock))
    error = scene.failed(UpstreamRefused(status, "first"), UpstreamRefused(status, "second"))
    assert (error.status, str(error), len(scene.asked)) == (status, "second", 2)
    assert scene.exchange.attempts == tuple(f"{name}: {status}" for name in scene.asked)


def test_U10_a_failure_without_another_node_is_the_answer(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 1), node("p", "m", kind="deepseek", clock=clock))
    assert scene.failed(UpstreamRefused(500, "no")).status == 500
    assert (scene.asked, scene.exchange.attempts) == (["box1"], ())


@pytest.mark.parametrize("status", [429, 503, 529])
def test_U11_what_is_busy_sends_on_to_the_others(clock: ManualClock, status: int) -> None:
    scene = Scene(clock, *boxes(clock))
    assert (
        scene.open(UpstreamRefused(status, "no"), UpstreamRefused(status, "no"), "answer")
        == "answer"
    )
    assert sorted(scene.asked) == ["box1", "box2", "box3"]
    assert not any(one.is_failing(M) for one in scene.fleet.nodes)


def test_U11_a_full_queue_of_the_only_box_is_the_answer(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 1))
    assert scene.failed(UpstreamRefused(503, "full", retry_after_s=1)).status == 503
    assert (scene.asked, scene.call.pauses) == (["box1"], [])


def test_a_page_in_place_of_an_answer_sends_on_to_another(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    assert scene.open(UpstreamError(detail="not JSON"), "answer") == "answer"
    assert scene.exchange.attempts[0].endswith(": upstream_error")


def test_a_node_that_fails_already_is_nowhere_to_go_to(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 2))
    scene.fleet.nodes[1].failed(M, slow_connect())
    assert scene.failed(UpstreamRefused(500, "no")).status == 500
    assert scene.asked == ["box1"]


# --- Not reached ----------------------------------------------------------------------------------


def test_U1_what_was_not_reached_is_asked_of_the_others_at_once(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    assert scene.open(UpstreamConnect(), slow_connect(), "answer") == "answer"
    assert (sorted(scene.asked), scene.call.pauses) == (["box1", "box2", "box3"], [])
    assert [each.split(": ")[1] for each in scene.exchange.attempts] == [
        "upstream_unreachable"
    ] * 2 + ["ok"]


def test_S4_18_what_is_not_reached_is_tried_three_times_more(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock))
    error = scene.failed(*(UpstreamConnect() for _ in range(4)))
    assert (error.status, len(scene.asked)) == (503, 4)
    assert scene.exchange.attempts == ("deepseek: upstream_unreachable",) * 4
    assert error.retry_after_s == 1


def test_S4_19_pauses_double(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock))
    assert scene.open(UpstreamConnect(), UpstreamConnect(), UpstreamConnect(), "answer") == "answer"
    assert scene.call.pauses == [0.1, 0.2, 0.4]


def test_S4_19_pauses_are_never_the_same(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr(random, "uniform", random.Random(5).uniform)
    pauses = []
    for _ in range(10):
        scene = Scene(clock, provider(clock))
        scene.open(UpstreamConnect(), "answer")
        pauses += scene.call.pauses
    assert len(set(pauses)) == 10
    assert all(0.05 <= pause_s <= 0.15 for pause_s in pauses)


def test_S4_19_no_pause_goes_beyond_the_callers_deadline(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock), total_s=0.25)
    assert scene.failed(UpstreamConnect(), UpstreamConnect()).status == 503
    assert (scene.call.pauses, len(scene.asked)) == ([0.1], 2)


def test_what_is_known_to_be_down_is_not_tried_again(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock))
    scene.fleet.nodes[0].lost(quickly=True)
    assert scene.failed(UpstreamConnect()).retry_after_s == 1
    assert (len(scene.asked), scene.call.pauses) == (1, [])


def test_reaching_nobody_costs_no_retries_of_the_store(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    for _ in range(30):
        scene.failed(*(UpstreamConnect() for _ in range(4)))
        clock.advance(60)
    assert scene.fleet.balancer.spend_retry()


# --- A provider's Retry-After ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"),
    [(1, 1.0), (7, 7.0), (LONGEST_PAUSE_S, LONGEST_PAUSE_S), (None, 0.1), (0, 0.1)],
)
@pytest.mark.parametrize("status", [429, 503, 529])
def test_S4_20_a_provider_is_asked_again_when_it_says(
    clock: ManualClock, status: int, retry_after_s: int | None, pause_s: float
) -> None:
    scene = Scene(clock, provider(clock))
    busy = UpstreamRefused(status, "slow down", retry_after_s=retry_after_s)
    assert scene.open(busy, "answer") == "answer"
    assert scene.call.pauses == [pause_s]
    assert scene.exchange.attempts == (f"deepseek: {status}", "deepseek: ok")


def test_S4_20_nobody_is_kept_waiting_for_longer_than_is_decent(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock))
    error = scene.failed(UpstreamRefused(429, "slow down", retry_after_s=21))
    assert (error.status, error.retry_after_s, scene.call.pauses) == (429, 21, [])


def test_S4_20_all_pauses_together_are_decent_too(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock))
    error = scene.failed(*(UpstreamRefused(429, "slow down", retry_after_s=7) for _ in range(3)))
    assert (error.status, scene.call.pauses) == (429, [7.0, 7.0])


def test_S4_20_nor_beyond_the_callers_deadline(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock), total_s=5)
    assert scene.failed(UpstreamRefused(429, "slow down", retry_after_s=6)).status == 429
    assert scene.call.pauses == []


def test_S4_20_a_provider_that_stays_busy_has_the_last_word(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock))
    error = scene.failed(*(UpstreamRefused(429, "slow down", retry_after_s=1) for _ in range(4)))
    assert (error.status, len(scene.asked)) == (429, 4)
    assert scene.exchange.attempts == ("deepseek: 429",) * 4


def test_another_key_of_the_same_provider_goes_before_a_pause(clock: ManualClock) -> None:
    scene = Scene(clock, provider(clock), node("second", "m", kind="deepseek", clock=clock))
    assert scene.open(UpstreamRefused(429, "slow down", retry_after_s=5), "answer") == "answer"
    assert (len(set(scene.asked)), scene.call.pauses) == (2, [])


# --- Limits ---------------------------------------------------------------------------------------


def test_U13_retries_end_with_what_is_in_store(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    while scene.fleet.balancer.spend_retry():
        pass
    assert scene.failed(UpstreamRefused(500, "no")).status == 500
    assert scene.failed(UpstreamRefused(429, "no")).status == 429
    assert len(scene.asked) == 2


def test_a_client_that_leaves_during_a_pause_is_waited_for_no_longer(clock: ManualClock) -> None:
    fleet = Fleet([provider(clock)], clock=clock)
    call = Call(Timeouts(), clock)
    exchange = Exchange("id", "POST", "/api/chat", "127.0.0.1", NATIVE, call)
    route = fleet.find("m")
    assert route is not None
    asked: list[str] = []

    def ask(one: Node, own: str) -> None:
        asked.append(one.name)
        raise UpstreamRefused(429, "slow down", retry_after_s=LONGEST_PAUSE_S)

    def opened() -> None:
        with pytest.raises(ClientGone):
            wait_open(Attempts(fleet, route, exchange, Lifecycle()).open(call, ask))

    waiting = gevent.spawn(opened)
    clock.advance(LONGEST_PAUSE_S / 2)
    assert not waiting.dead
    call.leave()
    waiting.join(1)
    assert waiting.successful()
    assert (asked, fleet.nodes[0].in_flight) == (["deepseek"], 0)


def test_a_client_that_has_left_is_not_tried_for_again(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    scene.call.leave()
    scene.failed(UpstreamConnect())
    assert len(scene.asked) == 1


# --- Replies that pass as they are ----------------------------------------------------------------


def test_a_reply_that_is_tried_again_is_closed_and_the_last_one_is_not(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock))
    first, second = refused_reply(500), refused_reply(502)
    assert scene.failed(first, second) is second
    assert (cast(Body, first.reply).is_closed, cast(Body, second.reply).is_closed) == (True, False)


class Sender:
    """An upstream whose forward gives one reply."""

    def __init__(self, reply: Body) -> None:
        self.reply = reply

    def forward(self, request: UpstreamRequest, call: Call) -> Body:
        """See Upstream.forward."""
        return self.reply

    def decode_refusal(self, reply: Reply) -> UpstreamError:
        """See Upstream.decode_refusal: by the text alone."""
        return UpstreamRefused(400 if read_all(reply) == b"your mistake" else reply.status, "")


def forward(reply: Body) -> Reply:
    box = node("box1")
    box.upstream = cast(Any, Sender(reply))
    return forward_to(box, UpstreamRequest("POST", "/api/chat"), Call(Timeouts()))


@each_row("status", [429, 500, 501, 502, 503, 504, 529])
def test_a_status_of_a_failure_is_raised(status: int) -> None:
    with pytest.raises(RefusedReply) as refused:
        forward(Body(status, (("retry-after", "3"),)))
    assert (refused.value.reply.status, refused.value.status, refused.value.retry_after_s) == (
        status,
        status,
        3,
    )


@pytest.mark.parametrize("status", [500, 501, 502])
def test_a_failure_that_the_request_is_to_blame_for_keeps_its_status_and_bytes(status: int) -> None:
    with pytest.raises(RefusedReply) as refused:
        forward(Body(status, (), [b"your ", b"mistake"]))
    assert (refused.value.status, refused.value.reply.status) == (400, status)
    assert read_all(refused.value.reply) == b"your mistake"


def test_a_failure_that_was_cut_is_a_failure_and_its_cut_is_seen_again() -> None:
    with pytest.raises(RefusedReply) as refused:
        forward(Body(500, (), [b"your ", UpstreamCut()]))
    assert refused.value.status == 500
    assert refused.value.reply.read_some() == b"your "
    with pytest.raises(UpstreamCut):
        refused.value.reply.read_some()


def test_a_failure_whose_client_leaves_is_closed() -> None:
    reply = Body(500, (), [b"your ", ClientGone()])
    with pytest.raises(ClientGone):
        forward(reply)
    assert reply.is_closed


@each_row("status", [200, 400, 401, 403, 404])
def test_every_other_reply_is_the_answer(status: int) -> None:
    reply = Body(status)
    assert cast(Any, forward(reply)) is reply


# --- How it ended ---------------------------------------------------------------------------------

ENDS: dict[str, tuple[str, int, bool]] = {
    "cut": ("upstream_error", 200, True),
    "too slow": ("timeout", 200, True),
    "client left": ("client_gone", 200, False),
    "worker stopped": ("aborted", 200, False),
    "refused": ("refused", 404, False),
    "busy": ("upstream_error", 503, False),
}


@pytest.mark.parametrize("case", ENDS)
def test_how_an_answer_ended_is_noted_on_its_node(clock: ManualClock, case: str) -> None:
    state, status, is_fault = ENDS[case]
    scene = Scene(clock, *boxes(clock, 1))
    scene.open("answer")
    box = scene.fleet.nodes[0]
    for _ in range(4):
        box.record_model_failure(M)
    scene.exchange.state, scene.exchange.status = state, status
    scene.exchange.finish()
    assert box.is_failing(M) is is_fault


def test_an_answer_that_ended_well_forgives_what_was_before(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 1))
    box = scene.fleet.nodes[0]
    for _ in range(5):
        box.record_model_failure(M)
    assert box.is_failing(M)
    scene.open("answer")
    scene.exchange.finish()
    assert not box.is_failing(M)


@pytest.mark.parametrize("opens", [True, False])
def test_one_attempt_on_a_given_node_holds_a_place_until_the_end(opens: bool) -> None:
    box = node("box1", "m")
    exchange = Exchange("id", "GET", "/api/tags", "127.0.0.1", NATIVE, Call(Timeouts()))
    seen: list[int] = []

    def ask() -> str:
        seen.append(box.in_flight)
        if not opens:
            raise UpstreamConnect
        return "answer"

    if opens:
        assert open_there(box, exchange, ask) == "answer"
    else:
        with pytest.raises(UpstreamConnect):
            open_there(box, exchange, ask)
    assert (seen, box.in_flight, exchange.upstream) == ([1], int(opens), "box1")
    exchange.finish()
    assert box.in_flight == 0


# --- Several answers to one request ---------------------------------------------------------------


class Told:
    """The events of one answer, and the error behind them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.is_closed = error, False
        self.metrics: dict[str, int] = {}

    def __iter__(self) -> Iterator[Sequence[Event]]:
        yield [Content("a")]
        if self.error is not None:
            raise self.error
        yield [Done("stop", metrics=self.metrics)]

    def close(self) -> None:
        """See EventStream."""
        self.is_closed = True


def open_events(scene: Scene, *answers: Told) -> list[EventStream]:
    """Several answers of one exchange, of nodes that have the model loaded."""
    for one in scene.fleet.nodes:
        one.begin(M).release()
    opened: list[EventStream] = []
    for answer in answers:
        scene.call.clock.advance(0.001)
        attempts = Attempts(scene.fleet, scene.route, scene.exchange, Lifecycle())
        opened.append(attempts.open_events(scene.call, lambda one, own, answer=answer: answer))
    return opened


#: How an answer ends, the state of its attempt, whether that is the node's failure, and
#: whether it is a success.
ENDINGS: dict[str, tuple[BaseException | None, str, bool, bool]] = {
    "complete": (None, "ok", False, True),
    "cut": (UpstreamCut(), "upstream_error", True, False),
    "too slow": (UpstreamTimeout(), "timeout", True, False),
    "error in its middle": (UpstreamRefused(500, "boom"), "upstream_error", True, False),
    "late refusal": (UpstreamRefused(404, "no"), "refused", False, False),
    "late and too long": (PromptTooLong("too long"), "refused", False, False),
    "late and busy": (UpstreamRefused(503, "busy"), "upstream_error", False, False),
    "client left": (ClientGone(), "client_gone", False, False),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_each_answer_has_its_own_outcome(clock: ManualClock, case: str) -> None:
    """Whatever the exchange comes to: the other answers are stopped, and count for nothing."""
    error, state, is_failure, is_success = ENDINGS[case]
    scene = Scene(clock, *boxes(clock, 3))
    for box in scene.fleet.nodes:
        for _ in range(4):
            box.record_model_failure(M)
    answers = [Told(error), Told(), Told()]
    one, *others = open_events(scene, *answers)
    waiting = iter(others[0])
    next(waiting)
    with pytest.raises(type(error)) if error else nullcontext():
        list(one)
    for each in (one, *others):
        each.close()
    scene.exchange.state, scene.exchange.status = "upstream_error", 200
    scene.exchange.finish()
    assert [each.state for each in scene.exchange.tried] == [state, "aborted", "aborted"]
    assert [each.is_closed for each in answers] == [True] * 3
    assert scene.in_flight == [0, 0, 0]
    first, *rest = (scene.fleet.node(each.upstream) for each in scene.exchange.tried)
    assert first is not None and first.is_failing(M) is is_failure
    assert not any(each.is_failing(M) for each in rest if each)
    for _ in range(4 if is_success else 0):
        first.record_model_failure(M)  # forgiven, so four more are not too many
    assert first.is_failing(M) is is_failure


def test_a_slot_is_free_as_soon_as_its_answer_is_complete(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 2))
    one, two = open_events(scene, Told(), Told())
    list(one)
    assert sum(scene.in_flight) == 1
    two.close()
    assert sum(scene.in_flight) == 0


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_exchange_names_every_node_once(clock: ManualClock, count: int) -> None:
    scene = Scene(clock, *boxes(clock, 2))
    for each in open_events(scene, *(Told() for _ in range(count))):
        list(each)
    assert sorted(scene.exchange.upstream.split(",")) == ["box1", "box2"][:count]
    assert scene.exchange.failed_upstream == scene.exchange.upstream


def test_the_node_that_failed_is_named_alone(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 3))
    good, bad, _ = open_events(scene, Told(), Told(UpstreamCut()), Told())
    list(good)
    with pytest.raises(UpstreamCut):
        list(bad)
    assert scene.exchange.failed_upstream == scene.exchange.tried[1].upstream
    assert len(scene.exchange.upstream.split(",")) == 3


def test_a_repeated_attempt_is_not_among_the_chosen(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 2))
    scene.open(UpstreamRefused(500, "no"), "answer")
    assert [each.is_repeated for each in scene.exchange.tried] == [True, False]
    assert scene.exchange.upstream == scene.asked[1] == scene.exchange.failed_upstream
    assert (scene.exchange.tried[0].state, scene.exchange.tried[0].error) == (
        "upstream_error",
        "upstream_refused",
    )


def test_the_last_attempt_is_chosen_even_if_it_fails(clock: ManualClock) -> None:
    scene = Scene(clock, *boxes(clock, 2))
    scene.failed(UpstreamRefused(500, "no"), UpstreamRefused(500, "no"))
    assert scene.exchange.upstream == scene.asked[1]


# --- Slots ----------------------------------------------------------------------------------------


class Queue:
    """Boxes that take one request at a time, and requests that want all of them."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.fleet = Fleet([node(name, "m", concurrency=1) for name in names])
        found = self.fleet.find("m")
        assert found is not None
        self.route = found
        self.lifecycle = Lifecycle()
        # Nothing starts a coordinator, so the worker decides itself.
        self.client = CoordinatorClient(directory, workers=1, start=lambda: None)
        self.client.configure(QueueLimits(), {name: BoxSettings(1) for name in names}, "UTC")

    def new_exchange(self) -> Exchange:
        """An exchange that needs slots."""
        exchange = Exchange(
            "id", "POST", "/api/chat", "127.0.0.1", NATIVE, Call(Timeouts()), model="m"
        )
        exchange.admission = self.client.begin("id", Flow("team"), tokens=1, about={})
        exchange.is_accounted = True
        return exchange

    def open(self, exchange: Exchange, answer: EventStream | None = None) -> EventStream:
        """The events of a request, which tell after each 50 ms that it waits."""
        attempts = Attempts(self.fleet, self.route, exchange, self.lifecycle, exchange.admission)
        return attempts.open_events(exchange.call, lambda one, own: answer or Told(), 0.05)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Queue]]:
    made: list[Queue] = []
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.0)

    def make(*names: str) -> Queue:
        made.append(Queue(tmp_path, *names))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


def test_a_request_that_nobody_waits_for_any_more_leaves_the_queue(
    queue: Callable[..., Queue],
) -> None:
    one = queue("box1")
    running, waiting, later = (one.open(one.new_exchange()) for _ in range(3))
    for each in (waiting, later):
        assert next(iter(each)) == ()
    waiting.close()
    running.close()
    assert [batch for batch in later if batch] == [[Content("a")], [Done("stop")]]
    assert one.fleet.nodes[0].in_flight == 0


def test_a_slot_of_a_node_that_went_down_is_not_used(queue: Callable[..., Queue]) -> None:
    one = queue("box1", "box2")
    exchanges = [one.new_exchange() for _ in range(3)]
    first, second, third = (one.open(each) for each in exchanges)
    batches = iter(third)
    assert next(batches) == ()
    lost, left = (one.fleet.node(each.upstream) for each in exchanges[:2])
    assert lost is not None and left is not None
    lost.lost(quickly=False)
    first.close()
    assert next(batches) == ()
    second.close()
    assert [batch for batch in batches if batch] == [[Content("a")], [Done("stop")]]
    assert [each.upstream for each in exchanges[2].tried] == [left.name]


def test_an_attempt_knows_its_gpu_time(queue: Callable[..., Queue]) -> None:
    one = queue("box1")
    measured, stopped = one.new_exchange(), one.new_exchange()
    answer = Told()
    answer.metrics = {
        "load_duration": 2 * 10**9,
        "prompt_eval_duration": 10**9,
        "eval_duration": 5 * 10**8,
    }
    list(one.open(measured, answer))
    events = one.open(stopped)
    gevent.sleep(0.05)
    events.close()
    assert (measured.tried[0].gpu_s, measured.tried[0].load_s) == (3.5, 2.0)
    assert 0.05 <= stopped.tried[0].gpu_s == stopped.tried[0].took_s < 1
    assert measured.tried[0].took_s <= stopped.tried[0].began_s + stopped.tried[0].took_s


def test_a_load_is_charged_to_the_attempt_that_caused_it(clock: ManualClock) -> None:
    """Those that begin while it runs report the same load, for which they have only waited."""
    scene = Scene(clock, node("box1", "m", clock=clock))
    scene.exchange.is_accounted = True
    first, second, third = Told(), Told(), Told()
    for answer in (first, second, third):
        answer.metrics = {"load_duration": 4 * 10**9, "eval_duration": 10**9}
    for answers in ((first, second), (third,)):
        for events in open_events(scene, *answers):
            list(events)
    tried = scene.exchange.tried
    assert [(each.gpu_s, each.load_s) for each in tried] == [(5.0, 4.0), (1.0, None), (5.0, 4.0)]
    assert not scene.fleet.nodes[0].accounted


def test_nothing_is_accounted_unless_it_is_needed(clock: ManualClock) -> None:
    scene = Scene(clock, node("box1", "m", clock=clock))
    for events in open_events(scene, Told()):
        list(events)
    assert (scene.exchange.tried[0].gpu_s, scene.exchange.tried[0].took_s) == (0.0, 0.0)
    assert not scene.fleet.nodes[0].accounted


def test_an_attempt_that_no_server_got_takes_no_gpu_time(clock: ManualClock) -> None:
    scene = Scene(clock, node("box1", "m", gpu_hour_price=1.0, clock=clock))
    scene.exchange.is_accounted = True
    with (
        pytest.raises(UpstreamConnect),
        RunningAttempt(scene.fleet.nodes[0], M, scene.exchange, scene.exchange.call),
    ):
        clock.advance(3)
        raise UpstreamConnect
    (attempt,) = scene.exchange.tried
    assert (attempt.error, attempt.took_s, attempt.gpu_s, attempt.gpu_cost) == (
        "upstream_unreachable",
        3.0,
        0.0,
        None,
    )


def test_work_on_models_takes_no_gpu_time(clock: ManualClock) -> None:
    box, exchange = (
        node("box1", gpu_hour_price=1.0, clock=clock),
        Scene(clock, node("box1", "m", clock=clock)).exchange,
    )
    exchange.is_accounted = True
    open_there(box, exchange, lambda: "answer")
    clock.advance(60)
    exchange.finish()
    (attempt,) = exchange.tried
    assert (attempt.state, attempt.took_s, attempt.gpu_s, attempt.gpu_cost) == (
        "ok",
        60.0,
        0.0,
        None,
    )


def test_a_worker_that_ends_lets_nobody_wait(queue: Callable[..., Queue]) -> None:
    one = queue("box1")
    running, waiting = one.open(one.new_exchange()), one.new_exchange()
    one.lifecycle.is_draining = True
    with pytest.raises(ShuttingDown):
        one.open(waiting)
    running.close()
    list(one.open(waiting))  # a slot that is free at once is still granted


def test_the_total_limit_counts_from_the_slot_and_the_callers_from_the_start(
    queue: Callable[..., Queue],
) -> None:
    one = queue("box1")
    running, patient, hurried = one.open(one.new_exchange()), one.new_exchange(), one.new_exchange()
    patient.call.limit(Timeouts(total_s=0.2))
    hurried.call.limit_by_caller(200)
    waiting = one.open(patient)
    with pytest.raises(UpstreamTimeout, match=r"longer than 0\.2 s"):
        list(one.open(hurried))
    batches = iter(waiting)
    assert [next(batches), next(batches)] == [(), ()]
    running.close()
    assert [batch for batch in batches if batch] == [[Content("a")], [Done("stop")]]
    assert patient.call.total_left_s() > 0
