"""Boxes and lanes: what is assumed to be loaded and cached, and what a lane remembers."""

from __future__ import annotations

import math

import pytest

from ollama_proxy.coordination.state import (
    MIN_QUEUES,
    Box,
    Estimates,
    FlowQueue,
    Grant,
    Lane,
    Outcome,
    Request,
    Waiting,
)
from tests.rig.tables import each_row


def make_box(**settings: float) -> Box:
    return Box("box1", Estimates(), is_up=True, **{"slots": 2, "max_loaded": 1, **settings})


def start(box: Box, number: str, model: str, now: float, *, loads: bool) -> Grant:
    request = Request(
        number, "f", (("box1", model),), tokens_estimated=2000, conversation=((number, 2000),)
    )
    grant = Grant(request, "box1", model, loads, now, 5.0)
    box.start(grant)
    return grant


def test_model_in_use_is_not_replaced() -> None:
    box = make_box()
    start(box, "1", "a", 0, loads=True)
    assert not box.can_load()
    del box.running["1"]
    assert box.can_load()
    start(box, "2", "b", 1, loads=True)
    assert list(box.loaded) == ["b"]
    assert list(box.prompts) == [("b", "2")]


def test_report_of_the_box_replaces_what_was_assumed() -> None:
    box = make_box(max_loaded=math.inf)
    start(box, "1", "a", 0, loads=True)
    start(box, "2", "b", 0, loads=True)
    del box.running["2"]
    box.report_loaded(["c"], 1)
    # `a` is in use, so it is being loaded.
    assert box.loaded == {"a": 10.0, "c": 1}


def test_expected_response_counts_the_rest_of_a_load_and_what_is_not_cached() -> None:
    box = make_box()
    request = Request(
        "2", "f", (("box1", "a"),), tokens_estimated=3000, conversation=(("1", 2000), ("2", 3000))
    )
    assert box.estimate_response_s(request, "a", 0) == 13.0
    start(box, "1", "a", 0, loads=True)
    assert box.estimate_response_s(request, "a", 4) == 7.0
    assert box.estimate_start_s(request, "a", 4) == 7.0
    # Without a free slot, it starts after the one that should end first; one that is overdue
    # takes its time once more.
    start(box, "3", "a", 4, loads=False)
    assert box.estimate_start_s(request, "a", 4) == 1.0 + 7.0
    assert box.estimate_start_s(request, "a", 7) == 2.0 + 4.0


def test_running_means_follow_what_was_measured() -> None:
    box = make_box()
    box.learn(start(box, "1", "a", 0, loads=True), Outcome(load_s=30, prompt_s=4), 50)
    expect = box.estimates.expect
    assert [expect(what, "box1", "a") for what in ("load", "service", "prompt")] == [30, 20, 0.002]
    assert [expect(what, "box2", "a") for what in ("load", "service")] == [30, 20]
    box.learn(start(box, "2", "a", 60, loads=False), Outcome(), 10)
    assert expect("service", "box1", "a") == pytest.approx(18)
    assert expect("service", "box1", "b") == 5.0


def test_lane_forgets_idle_flows_that_owe_nothing() -> None:
    box = make_box()
    lane = Lane({box: "a"}, is_background=False)
    for number in range(MIN_QUEUES):
        lane.queues[str(number)] = FlowQueue(str(number), lane, tag=float(number))
    box.virtual_s = 1000.0
    busy = lane.queues["7"]
    lane.add(Waiting(Request("r", "7", (("box1", "a"),)), 1, 0.0, busy))
    assert len(lane.prune()) == 1000
    assert busy.tag == 1000.0 and "7" in lane.queues
    assert lane.prune() == []


def use(box: Box, model: str, now: float) -> None:
    start(box, str(now), model, now, loads=model not in box.loaded)
    del box.running[str(now)]


@each_row(
    ("used", "reported", "capacity"),
    [
        ("ab", ["b"], 1),
        ("abc", ["b", "c"], 2),
        ("ab", ["a", "b"], math.inf),
        # `a` was used after `b` was loaded, so there is room for both: it was
        # unloaded because it was idle.
        ("aba", ["b"], math.inf),
        ("aba", [], math.inf),
        # Nothing is left, so idle models were unloaded.
        ("ab", [], math.inf),
    ],
)
def test_room_for_models_is_learned_from_what_is_gone(
    used: str, reported: list[str], capacity: float
) -> None:
    box, known = make_box(max_loaded=math.inf), make_box(max_loaded=3)
    for each in (box, known):
        for number, model in enumerate(used):
            use(each, model, 20.0 * number)
        each.report_loaded(reported, 100)
    assert (box.capacity, known.capacity) == (capacity, 3)
    box.report_loaded(["a", "b", "c", "d"], 200)
    assert box.capacity == max(capacity, 4)
