"""One upstream in the fleet: how busy it is, and what its failures mean."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ollama_proxy.errors import (
    BadRequest,
    GatewayError,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.health import check_upstream
from ollama_proxy.upstreams.fleet.node import (
    FAILED_AT_MOST,
    SATURATED_AT,
    UNREACHED_AT_MOST,
    WARM_S,
    State,
)
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row
from tests.unit.upstreams.stock import new_call, node, stock

M = "m:latest"


def unreached(took_s: float = 0.0) -> UpstreamConnect:
    error = UpstreamConnect()
    error.took_s = took_s
    return error


def test_its_own_limits_come_before_the_general_ones() -> None:
    general = Timeouts(connect_s=1, idle_s=2)
    assert node("box1").timeouts(general) is general
    assert node("box1", timeouts={"idle_s": 9.0}).timeouts(general) == Timeouts(
        connect_s=1, idle_s=9
    )


# --- Warm -----------------------------------------------------------------------------------------


def test_a_model_is_warm_that_is_loaded_or_was_asked_for_lately(clock: ManualClock) -> None:
    box = node("box1", "m", "other", clock=clock)
    assert not box.is_warm(M)
    box.begin(M).release()
    assert (box.is_warm(M), box.is_warm("other:latest")) == (True, False)
    clock.advance(WARM_S + 1)
    assert not box.is_warm(M)
    stock(box).has_loaded = ["M:latest"]
    box.models.fetch(new_call(clock))
    assert box.is_warm(M)


def test_a_model_that_is_asked_for_again_and_again_stays_warm(clock: ManualClock) -> None:
    box = node("one", "m", clock=clock)
    for _ in range(6):
        box.begin(M).release()
        clock.advance(WARM_S / 2)
        assert box.is_warm(M)


def test_a_provider_is_always_warm() -> None:
    assert node("one", "m", kind="deepseek").is_warm(M)


def test_what_is_saturated_is_as_good_as_cold() -> None:
    box = node("box1", "m", weight=2)
    places = [box.begin(M) for _ in range(2 * SATURATED_AT)]
    assert not box.is_warm(M)
    places.pop().release()
    assert box.is_warm(M)


def test_the_least_recently_asked_models_are_forgotten(clock: ManualClock) -> None:
    box = node("box1", clock=clock)
    for number in range(1500):
        box.begin(f"m{number}:latest").release()
    assert (box.is_warm("m0:latest"), box.is_warm("m1499:latest")) == (False, True)


# --- Places ---------------------------------------------------------------------------------------


def test_a_place_is_given_back_once() -> None:
    box = node("box1", "m")
    first, second = box.begin(M), box.begin(M)
    assert box.in_flight == 2
    assert (first.release(), first.release(), box.in_flight) == (True, False, 1)
    assert (second.release(), box.in_flight) == (True, 0)


def test_load_counts_requests_for_its_weight() -> None:
    light, heavy = node("box1"), node("box2", weight=4)
    assert (light.load(), heavy.load()) == (1.0, 0.25)
    heavy.begin(M)
    assert heavy.load() == 0.5


def test_after_a_recovery_it_counts_as_busier_than_it_is(clock: ManualClock) -> None:
    box = node("box1", clock=clock)
    box.lost(quickly=True)
    box.succeeded(M)
    assert box.load() == pytest.approx(10.0)
    clock.advance(5)
    assert box.load() == pytest.approx(2.0)
    clock.advance(5)
    assert box.load() == 1.0


# --- Failures -------------------------------------------------------------------------------------


def test_one_failure_to_reach_it_makes_it_suspect_and_some_close_it(clock: ManualClock) -> None:
    box = node("box1", "m", clock=clock)
    box.failed(M, unreached())
    assert (box.is_failing(M), box.is_failing("other:latest"), box.allows()) == (True, True, True)
    for _ in range(UNREACHED_AT_MOST - 1):
        box.failed(M, unreached())
    assert (box.allows(), box.condition) == (False, "down")
    box.succeeded(M)
    assert (box.allows(), box.is_failing(M)) == (True, False)


def test_a_check_that_does_not_reach_it_closes_it_at_once(clock: ManualClock) -> None:
    box = node("box1", "m", clock=clock)
    box.lost(quickly=False)
    assert (box.allows(), box.refuses_at_once) == (False, False)
    box.lost(quickly=True)
    assert (box.allows(), box.refuses_at_once) == (False, True)


@pytest.mark.parametrize(("took_s", "quick"), [(0.01, True), (3.0, False)])
def test_it_is_remembered_how_soon_it_refuses(took_s: float, quick: bool) -> None:
    box = node("box1", "m")
    box.failed(M, unreached(took_s))
    assert box.refuses_at_once is quick


def test_failed_answers_count_against_one_model_only(clock: ManualClock) -> None:
    box = node("box1", "m", "other", clock=clock)
    for _ in range(FAILED_AT_MOST):
        assert not box.is_failing(M)
        box.failed(M, UpstreamRefused(500, "no"))
    assert (box.is_failing(M), box.is_failing("other:latest"), box.allows()) == (True, False, True)
    assert box.failing_models() == [M]
    clock.advance(1.0)
    assert not box.is_failing(M)
    place = box.begin(M)
    assert box.is_failing(M)  # the one trial is under way
    place.release()
    box.succeeded(M)
    assert (box.is_failing(M), box.failing_models()) == (False, [])


FAULTS: dict[str, tuple[GatewayError, bool]] = {
    "500": (UpstreamRefused(500, ""), True),
    "502": (UpstreamRefused(502, ""), True),
    "504": (UpstreamRefused(504, ""), True),
    "no usable answer": (UpstreamError(), True),
    "cut": (UpstreamCut(), True),
    "too slow": (UpstreamTimeout(), True),
    "busy": (UpstreamRefused(503, ""), False),
    "too many": (UpstreamRefused(429, ""), False),
    "overloaded": (UpstreamRefused(529, ""), False),
    "bad request": (UpstreamRefused(400, ""), False),
    "no such model": (UpstreamRefused(404, ""), False),
    "our key": (UpstreamAuthError(), False),
    "the client's fault": (BadRequest(), False),
}


@each_row("case", FAULTS)
def test_U11_who_is_at_fault(case: str) -> None:
    error, is_theirs = FAULTS[case]
    box = node("box1", "m")
    for _ in range(FAILED_AT_MOST):
        box.failed(M, error)
    assert (box.is_failing(M), box.allows()) == (is_theirs, True)


@each_row(
    ("error", "closes"),
    [
        (UpstreamRefused(500, ""), True),
        (UpstreamRefused(429, ""), True),
        (UpstreamError(), True),
        (UpstreamCut(), False),
        (UpstreamTimeout(), False),
    ],
)
def test_only_an_answer_says_that_it_is_there(error: UpstreamError, closes: bool) -> None:
    box = node("box1", "m")
    box.lost(quickly=False)
    box.failed(M, error)
    assert box.connection.is_closed is closes


def test_what_its_last_check_found_useless_is_failing() -> None:
    box = node("box1", "m")
    box.state = State(False, reason="status 401")
    assert (box.is_failing(M), box.allows()) == (True, True)
    box.state = State(True)
    assert not box.is_failing(M)


# --- Conditions -----------------------------------------------------------------------------------


def test_what_it_is_for_the_operator(clock: ManualClock) -> None:
    box = node("box1", "m", clock=clock)
    assert box.condition == "unknown"
    box.state = State(True)
    assert box.condition == "up"
    box.state = State(False)
    assert box.condition == "down"
    box.lost(quickly=True)
    assert box.condition == "down"
    clock.advance(2)
    assert box.condition == "half-open"
    box.configure(replace(box.declared, drain=True))
    assert (box.condition, box.allows(), box.refuses_at_once) == ("draining", False, False)


def test_a_box_is_a_server_of_ollamas_kind() -> None:
    kinds = {
        kind: node("one", kind=kind).is_ollama_node
        for kind in ("ollama", "demo", "openai", "anthropic", "litellm")
    }
    assert [kind for kind, is_box in kinds.items() if is_box] == ["ollama", "demo"]


# --- What a look at it says -----------------------------------------------------------------------


class SlowToTell:
    """An upstream that doesn't say its version in time."""

    def __init__(self, error: GatewayError) -> None:
        self.error = error

    def version(self, call: Call) -> str:
        raise self.error


@pytest.mark.parametrize("error", [UpstreamTimeout(), UpstreamCut()], ids=["too late", "cut"])
@pytest.mark.parametrize(("kind", "usable"), [("deepseek", True), ("ollama", False)])
def test_a_provider_may_be_slow_to_list_its_models_and_a_box_may_not(
    error: GatewayError, kind: str, *, usable: bool
) -> None:
    looked_at = node("one", kind=kind)
    looked_at.upstream = SlowToTell(error)  # type: ignore[assignment]
    assert check_upstream(looked_at).usable is usable
