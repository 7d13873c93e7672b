"""Why a request waits, in a few words for a status page. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_proxy.coordination.state import Box, Lane

#: Boxes that are named; of more only the number is told.
MAX_NAMED = 3


def explain_wait(lane: Lane, now: float) -> str:
    """What the requests of a lane wait for: a box, a load, a slot, or others that go first."""
    boxes = [box for box in lane.boxes if box.is_usable]
    if not boxes:
        return _explain_unusable(list(lane.boxes))
    loading = next((box for box in boxes if box.loaded.get(lane.boxes[box], now) > now), None)
    if loading:
        return f"{lane.boxes[loading]} is being loaded on {loading.name}"
    free = [box for box in boxes if box.is_open]
    if not free:
        running, slots = sum(len(box.running) for box in boxes), int(sum(box.slots for box in boxes))
        return f"{_count(running, 'request')} {_verb(running, 'run')} on {_name(boxes)}, {_count(slots, 'slot')}"
    if lane.is_background and any(box.lanes[False] for box in free):
        return f"requests of normal priority go first on {_name(free)}"
    return _explain_unused_slot(lane, boxes, free)


def _explain_unusable(boxes: list[Box]) -> str:
    up = [box for box in boxes if box.is_up]
    named = up or boxes
    return f"{_name(named)} {'is' if len(named) == 1 else 'are'} {'draining' if up else 'down'}"


def _explain_unused_slot(lane: Lane, boxes: list[Box], free: list[Box]) -> str:
    """Rules 4 and 5: a slot is free, but it would not help, or only later than a busy box."""
    having = [box for box in boxes if lane.boxes[box] in box.loaded and box not in free]
    model = lane.boxes[(having or free)[0]]
    if having:
        return f"{model} is loaded on {_name(having)}, which should be free soon"
    if any(lane.boxes[box] in box.loaded for box in free):
        return f"another model has its turn on {_name(free)}"
    return f"{_name(free)} {_verb(len(free), 'use')} all models that fit, so {model} can't be loaded yet"


def _name(boxes: Sequence[Box]) -> str:
    """`box1`, `box1 and box2`, `box1, box2 and box3`, `4 boxes`."""
    if len(boxes) > MAX_NAMED:
        return f"{len(boxes)} boxes"
    *first, last = (box.name for box in boxes)
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _verb(number: int, verb: str) -> str:
    return f"{verb}s" if number == 1 else verb
