"""Why a request waits, in a few words for a status page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ollama_proxy.coordination.state import Box, Lane
from ollama_proxy.texts import Translatable

#: Boxes that are named; of more only the number is told.
MAX_NAMED = 3


def explain_wait(lane: Lane, now: float) -> Translatable:
    """What the requests of a lane wait for: a box, a load, a slot, or others that go first."""
    boxes = [box for box in lane.boxes if box.is_usable]
    if not boxes:
        return _explain_unusable(list(lane.boxes))
    loading = next((box for box in boxes if box.loaded.get(lane.boxes[box], now) > now), None)
    if loading:
        return Translatable(
            "%(model)s is being loaded on %(box)s", model=lane.boxes[loading], box=loading.name
        )
    free = [box for box in boxes if box.is_open]
    if not free:
        return _explain_used_slots(boxes)
    if lane.is_background and any(box.lanes[False] for box in free):
        return Translatable("requests of normal priority go first on %(boxes)s", boxes=_name(free))
    return _explain_unused_slot(lane, boxes, free)


def _explain_unusable(boxes: list[Box]) -> Translatable:
    up = [box for box in boxes if box.is_up]
    names, is_one = _name(up or boxes), len(up or boxes) == 1
    if up:
        draining = Translatable("%(box)s is draining", box=names)
        return draining if is_one else Translatable("%(boxes)s are draining", boxes=names)
    return (
        Translatable("%(box)s is down", box=names)
        if is_one
        else Translatable("%(boxes)s are down", boxes=names)
    )


def _explain_used_slots(boxes: list[Box]) -> Translatable:
    running, slots = sum(len(box.running) for box in boxes), int(sum(box.slots for box in boxes))
    one, several = Translatable("1 slot"), Translatable("%(number)s slots", number=slots)
    named: dict[str, str] = {"boxes": _name(boxes), "slots": one if slots == 1 else several}
    if running == 1:
        return Translatable("1 request runs on %(boxes)s, %(slots)s", **named)
    return Translatable("%(number)s requests run on %(boxes)s, %(slots)s", number=running, **named)


def _explain_unused_slot(lane: Lane, boxes: list[Box], free: list[Box]) -> Translatable:
    """Rules 4 and 5: a slot is free, but it would not help, or only later than a busy box."""
    having = [box for box in boxes if lane.boxes[box] in box.loaded and box not in free]
    model = lane.boxes[(having or free)[0]]
    if having:
        return Translatable(
            "%(model)s is loaded on %(boxes)s, which should be free soon",
            model=model,
            boxes=_name(having),
        )
    if any(lane.boxes[box] in box.loaded for box in free):
        return Translatable("another model has its turn on %(boxes)s", boxes=_name(free))
    named = {"model": model, "boxes": _name(free)}
    if len(free) == 1:
        return Translatable(
            "%(boxes)s uses all models that fit, so %(model)s can't be loaded yet", **named
        )
    return Translatable(
        "%(boxes)s use all models that fit, so %(model)s can't be loaded yet", **named
    )


def _name(boxes: Sequence[Box]) -> str:
    """`box1`, `box1 and box2`, `box1, box2 and box3`, `4 boxes`."""
    if len(boxes) > MAX_NAMED:
        return Translatable("%(number)s boxes", number=len(boxes))
    *first, last = (box.name for box in boxes)
    if not first:
        return last
    listed = reduce(
        lambda names, name: Translatable("%(names)s, %(name)s", names=names, name=name), first
    )
    return Translatable("%(names)s and %(name)s", names=listed, name=last)
