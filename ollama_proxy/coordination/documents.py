"""The scheduler's state as plain JSON values, for a store that several machines share. Pure.

Requests that wait are listed with their lane and flow, those that run with their box.
What has no end is null.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from ollama_proxy.coordination.state import Box, Estimates, FlowQueue, Grant, Lane, Request, Waiting

#: Hashes of a conversation that matter while its request runs: whether there is more than one.
_RUNNING_TURNS = 2


def dump_request(request: Request, turns: int = 0) -> list[Any]:
    """A request without its candidates, which its lane has; with the last `turns`
    hashes of its conversation."""
    conversation = request.conversation[-turns:]
    fields = (
        request.id,
        request.flow,
        request.weight,
        request.is_background,
        request.tokens_estimated,
    )
    return [*fields, request.waiting_since_s, conversation]


def load_request(fields: list[Any], lane: Lane) -> Request:
    """The request of `dump_request`."""
    request_id, flow, weight, is_background, tokens, since_s, conversation = fields
    turns = tuple(map(tuple, conversation))
    return Request(request_id, flow, lane.candidates, weight, is_background, tokens, turns, since_s)


def dump_box(box: Box) -> dict[str, Any]:
    """A box without what runs on it."""
    bounds = (box.slots, box.max_loaded, box.seen_loaded)
    return {
        "bounds": [None if bound == math.inf else bound for bound in bounds],
        "state": [box.is_up, box.is_draining, box.loaded_at_s, box.virtual_s],
        "loaded": box.loaded,
        "prompts": list(box.prompts),
    }


def load_box(name: str, fields: dict[str, Any], estimates: Estimates) -> Box:
    """The box of `dump_box`."""
    slots, max_loaded, seen_loaded = (
        math.inf if bound is None else bound for bound in fields["bounds"]
    )
    box = Box(name, estimates, slots, max_loaded, seen_loaded, loaded=fields["loaded"])
    box.is_up, box.is_draining, box.loaded_at_s, box.virtual_s = fields["state"]
    for model, end in fields["prompts"]:
        box.prompts[model, end] = None
        estimates.prompts[model, end] = box
    return box


def dump_lane(lane: Lane) -> dict[str, Any]:
    """A lane with what waits in it, and the flows that owe something."""
    return {
        "boxes": lane.candidates,
        "background": lane.is_background,
        "overtaken": {box.name: seconds for box, seconds in lane.overtaken_s.items() if seconds},
        "flows": {
            flow: [
                queue.tag,
                [
                    [each.number, each.since_s, *dump_request(each.request)]
                    for each in queue.waiting
                ],
            ]
            for flow, queue in lane.queues.items()
            if not queue.is_settled
        },
    }


def load_lane(fields: dict[str, Any], boxes: dict[str, Box]) -> Lane:
    """The lane of `dump_lane`, which waits at its boxes."""
    lane = Lane(
        {boxes[name]: model for name, model in fields["boxes"]}, is_background=fields["background"]
    )
    for flow, (tag, waiting) in fields["flows"].items():
        queue = lane.queues[flow] = FlowQueue(flow, lane, tag)
        requests = (
            (number, since_s, load_request(rest, lane)) for number, since_s, *rest in waiting
        )
        queue.waiting = deque(
            Waiting(request, number, since_s, queue) for number, since_s, request in requests
        )
        lane.waiting += len(waiting)
        lane.sort(queue)
    if lane.waiting:
        lane.overtaken_s.update(
            {boxes[name]: seconds for name, seconds in fields["overtaken"].items()}
        )
        for box in lane.boxes:
            box.lanes[lane.is_background][lane] = None
    return lane


def dump_grant(grant: Grant, lane: int) -> list[Any]:
    """A slot that is held by a request of the lane with this number."""
    request = dump_request(grant.request, _RUNNING_TURNS)
    return [lane, grant.box, grant.model, grant.loads, grant.started_s, grant.cost_s, *request]


def load_grant(fields: list[Any], lane: Lane) -> Grant:
    """The slot of `dump_grant`."""
    _, box, model, loads, started_s, cost_s, *request = fields
    return Grant(load_request(request, lane), box, model, loads, started_s, cost_s)
