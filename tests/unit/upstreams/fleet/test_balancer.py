"""The choice of a node for each request, and the budget of retries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ollama_proxy.errors import CONNECT_FAILED, UpstreamConnect
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.balancer import RETRY_STORE, Balancer, Route
from ollama_proxy.upstreams.fleet.model_index import Fleet
from ollama_proxy.upstreams.fleet.node import SATURATED_AT, Node, State
from tests.rig.clock import ManualClock
from tests.unit.upstreams.stock import node, stock

M = "m:latest"


def route_of(fleet: Fleet, name: str = "m") -> Route:
    route = fleet.find(name)
    assert route is not None
    return route


def picked(fleet: Fleet, name: str = "m", token: str = "t", avoided: Sequence[Node] = ()) -> str:
    return fleet.balancer.pick(route_of(fleet, name), token, avoided)[0].name


def three(clock: ManualClock, **loaded: str) -> tuple[Fleet, list[Node]]:
    """Three boxes with the model, none of them asked before; `loaded`: what each has loaded."""
    boxes = [node(name, "m", "other", clock=clock) for name in ("box1", "box2", "box3")]
    for box in boxes:
        if box.name in loaded:
            stock(box).has_loaded = [loaded[box.name]]
            box.models.fetch(Call(Timeouts(), clock))
    return Fleet(boxes, clock=clock), boxes


def test_requests_take_turns_where_all_is_equal(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m", box2="m", box3="m")
    taken = []
    for number in range(6):
        clock.advance(1)
        taken.append(picked(fleet, token=f"t{number}"))
        next(box for box in boxes if box.name == taken[-1]).begin(M).release()
    assert taken == ["box1", "box2", "box3", "box1", "box2", "box3"]


def test_who_has_it_loaded_goes_before_who_is_idle(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box2="m")
    boxes[1].begin(M)
    assert picked(fleet) == "box2"


def test_a_model_that_is_being_loaded_for_another_counts_as_loaded(clock: ManualClock) -> None:
    fleet, boxes = three(clock)
    boxes[2].begin(M)
    assert picked(fleet) == "box3"


def test_another_box_may_as_well_load_it_when_the_first_is_full(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box2="m")
    for _ in range(SATURATED_AT):
        boxes[1].begin(M)
    assert picked(fleet) == "box1"


def test_who_has_the_fewest_requests_is_next(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m", box2="m", box3="m")
    for box, count in zip(boxes, (2, 1, 3), strict=True):
        for _ in range(count):
            box.begin(M)
    assert picked(fleet) == "box2"


def test_requests_are_shared_out_by_weight(clock: ManualClock) -> None:
    boxes = [node("light", "m", clock=clock), node("heavy", "m", weight=3, clock=clock)]
    for box in boxes:
        stock(box).has_loaded = ["m"]
        box.models.fetch(Call(Timeouts(), clock))
    fleet, taken = Fleet(boxes, clock=clock), []
    for number in range(8):
        clock.advance(1)
        one, _ = fleet.balancer.pick(route_of(fleet), f"t{number}")
        one.begin(M)
        taken.append(one.name)
    assert (taken.count("light"), taken.count("heavy")) == (2, 6)


def test_a_token_stays_where_it_was_unless_another_is_less_busy(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m", box2="m", box3="m")
    first = picked(fleet, token="a")
    box = next(box for box in boxes if box.name == first)
    for _ in range(3):
        clock.advance(1)
        box.begin(M).release()
        assert picked(fleet, token="a") == first
    assert picked(fleet, token="b") != first
    box.begin(M)
    box.begin(M)
    assert picked(fleet, token="a") != first


def test_a_token_that_moved_stays_where_it_is_now(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m", box2="m", box3="m")
    boxes[0].begin(M)
    boxes[1].begin(M)
    assert picked(fleet, token="a") == "box3"
    assert picked(fleet, token="a") == "box3"
    assert picked(fleet, "other", token="a") != ""


def test_drained_boxes_get_nothing(clock: ManualClock) -> None:
    fleet = Fleet(
        [node("box1", "m", drain=True, clock=clock), node("box2", "m", clock=clock)], clock=clock
    )
    assert {picked(fleet, token=str(number)) for number in range(5)} == {"box2"}


def test_where_all_is_drained_it_is_said() -> None:
    fleet = Fleet([node("box1", "m", drain=True), node("box2", "other")])
    with pytest.raises(UpstreamConnect, match="drained") as refused:
        picked(fleet)
    assert refused.value.retry_after_s == 5


def test_a_box_that_was_just_not_reached_is_the_last_choice(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m")
    boxes[0].failed(M, UpstreamConnect())
    assert picked(fleet) == "box2"
    assert picked(fleet, avoided=boxes[1:]) == "box1"


def test_a_box_that_its_check_found_useless_is_the_last_choice(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m")
    boxes[0].state = State(False, reason="status 500")
    assert picked(fleet) == "box2"


def test_a_box_that_fails_with_one_model_is_used_for_another(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m")
    for _ in range(5):
        boxes[0].record_model_failure(M)
    boxes[0].begin("other:latest")
    assert (picked(fleet), picked(fleet, "other")) == ("box2", "box1")


def test_where_all_fail_with_a_model_it_is_still_tried(clock: ManualClock) -> None:
    fleet, boxes = three(clock)
    for box in boxes:
        for _ in range(5):
            box.record_model_failure(M)
    assert picked(fleet) in ("box1", "box2", "box3")


def test_a_recovered_box_gets_its_share_back_slowly(clock: ManualClock) -> None:
    fleet, boxes = three(clock, box1="m", box2="m", box3="m")
    boxes[0].lost(quickly=True)
    boxes[0].succeeded(M)
    for box in boxes[1:]:
        for _ in range(3):
            box.begin(M)
    assert picked(fleet, token="a") != "box1"
    clock.advance(5)
    assert picked(fleet, token="b") == "box1"


def down(boxes: Sequence[Node], *, quickly: bool) -> None:
    for box in boxes:
        box.lost(quickly=quickly)


def test_U14_where_all_are_down_it_is_said_at_once_with_the_time_of_the_next_trial(
    clock: ManualClock,
) -> None:
    fleet, boxes = three(clock)
    down(boxes, quickly=False)
    with pytest.raises(UpstreamConnect) as refused:
        picked(fleet)
    assert refused.value.retry_after_s == 1


def test_U14_a_half_open_box_gets_one_trial(clock: ManualClock) -> None:
    fleet, boxes = three(clock)
    down(boxes, quickly=False)
    clock.advance(1.5)
    for _ in boxes:
        one, _ = fleet.balancer.pick(route_of(fleet), "t")
        one.begin(M)
    with pytest.raises(UpstreamConnect):
        picked(fleet)


def test_boxes_that_refuse_at_once_may_be_asked_all_the_same(clock: ManualClock) -> None:
    fleet, boxes = three(clock)
    down(boxes[:2], quickly=False)
    down(boxes[2:], quickly=True)
    assert picked(fleet) == "box3"


def test_has_other_counts_neither_the_tried_nor_the_failing(clock: ManualClock) -> None:
    fleet, boxes = three(clock)
    route = route_of(fleet)
    assert route.has_other(boxes[:2])
    assert not route.has_other(boxes)
    boxes[2].failed(M, UpstreamConnect())
    assert not route.has_other(boxes[:2])


# --- The store of retries -------------------------------------------------------------------------


def test_an_idle_gateway_has_some_retries_in_store_and_requests_earn_more() -> None:
    balancer = Balancer()
    assert [balancer.spend_retry() for _ in range(int(RETRY_STORE) + 2)] == [True] * int(
        RETRY_STORE
    ) + [False] * 2
    for _ in range(25):
        balancer.count_request()
    assert [balancer.spend_retry() for _ in range(3)] == [True, True, False]


def test_the_store_is_full_at_some_time() -> None:
    balancer = Balancer()
    for _ in range(1000):
        balancer.count_request()
    assert sum(balancer.spend_retry() for _ in range(100)) == RETRY_STORE


def route(*nodes: Node, is_guess: bool = False) -> Route:
    return Route("qwen3:latest", tuple((each, "qwen3") for each in nodes), "qwen3:latest", is_guess)


def test_fewer_nodes() -> None:
    one, two = node("one", "qwen3"), node("two", "qwen3")
    assert [each.name for each, _ in route(one, two).only([two]).nodes] == ["two"]


def test_another_node_is_one_that_was_not_tried() -> None:
    one, two = node("one", "qwen3"), node("two", "qwen3")
    assert route(one, two).has_other([one])
    assert not route(one, two).has_other([one, two])


def test_spellings_of_the_model_on_one_node() -> None:
    one = node("one", "qwen3")
    assert route(one).spellings(one) == ("one/qwen3", "one:qwen3", "one:qwen3:latest")


def test_what_is_said_when_none_can_be_reached() -> None:
    box, provider = node("box", "qwen3"), node("lab", "qwen3", kind="deepseek")
    assert route(box).lost == CONNECT_FAILED
    assert "lab" in route(provider).lost
    assert "qwen3:latest" in route(box, is_guess=True).lost


def test_nodes_that_are_drained_take_nothing() -> None:
    error = route(node("one", "qwen3", drain=True)).unusable()
    assert (error.status, error.detail, error.retry_after_s) == (503, "draining", 5)
    assert "drained" not in str(route(node("one", "qwen3")).unusable())
