"""Requests, boxes and lanes as JSON values."""

from __future__ import annotations

import json
import math
from typing import Any

from ollama_proxy.coordination.documents import (
    dump_box,
    dump_grant,
    dump_lane,
    dump_request,
    load_box,
    load_grant,
    load_lane,
    load_request,
)
from ollama_proxy.coordination.state import Box, Estimates, FlowQueue, Grant, Lane, Request, Waiting

TURNS = tuple((f"hash{number}", number * 100) for number in range(1, 5))
REQUEST = Request("id/1", "flow", (("box1", "a"), ("box2", "b")), 2.5, True, 400, TURNS, 17.25)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def make_boxes() -> dict[str, Box]:
    estimates = Estimates()
    return {name: Box(name, estimates) for name in ("box1", "box2")}


def make_lane(boxes: dict[str, Box]) -> Lane:
    return Lane({boxes["box1"]: "a", boxes["box2"]: "b"}, is_background=True)


def test_request_comes_back_as_it_was() -> None:
    assert load_request(through_json(dump_request(REQUEST)), make_lane(make_boxes())) == REQUEST


def test_box_comes_back_with_what_is_known_of_it() -> None:
    box = Box(
        "box1", Estimates(), math.inf, 3, 2, 7.5, is_up=True, is_draining=True, virtual_s=12.5
    )
    box.loaded = {"b": 3.0, "a": 1.0}
    box.prompts[("a", "hash")] = None
    estimates = Estimates()
    loaded = load_box("box1", through_json(dump_box(box)), estimates)
    assert dump_box(loaded) == dump_box(box) and estimates.prompts == {("a", "hash"): loaded}
    assert (loaded.slots, loaded.max_loaded, loaded.capacity, loaded.loaded_at_s) == (
        math.inf,
        3,
        2,
        7.5,
    )
    assert (loaded.is_up, loaded.is_draining, loaded.virtual_s) == (True, True, 12.5)


def test_lane_comes_back_with_its_queues_and_waits_at_its_boxes() -> None:
    boxes = make_boxes()
    lane = make_lane(boxes)
    lane.overtaken_s[boxes["box2"]] = 4.5
    lane.queues = {
        name: FlowQueue(name, lane, tag)
        for name, tag in (("flow", 3.5), ("debtor", 9.0), ("settled", 0.0))
    }
    lane.add(Waiting(REQUEST, 8, 17.25, lane.queues["flow"]))
    loaded = load_lane(through_json(dump_lane(lane)), other := make_boxes())
    assert dump_lane(loaded) == dump_lane(lane)
    assert loaded.queues.keys() == {"flow", "debtor"} and loaded.waiting == 1
    assert [(tag, number, queue.flow) for tag, number, queue in loaded.order] == [
        (-math.inf, 8, "flow")
    ]
    assert all(loaded in box.lanes[True] for box in other.values())


def test_slot_comes_back_without_most_of_the_conversation() -> None:
    grant = Grant(REQUEST, "box2", "b", loads=True, started_s=2.5, cost_s=7.5)
    fields = through_json(dump_grant(grant, 3))
    loaded = load_grant(fields, make_lane(make_boxes()))
    assert fields[0] == 3 and loaded.request.conversation == TURNS[-2:]
    assert dump_grant(loaded, 3) == dump_grant(grant, 3)
    assert (loaded.box, loaded.model, loaded.loads, loaded.started_s, loaded.cost_s) == (
        "box2",
        "b",
        True,
        2.5,
        7.5,
    )
