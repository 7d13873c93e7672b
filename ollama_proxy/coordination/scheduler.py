"""Decides which waiting request gets the next free slot, and on which box. Pure: state
and time in, grants out.

Every method that changes something takes `now` in seconds, on any clock that never goes back,
and returns the decisions that follow from it. The same calls give the same decisions. The
rules, and where they are:

1. Slots: never more requests than slots on a box, and only boxes that may be used (`Box.is_open`).
2. Priority: a background request starts only on a box that no normal request waits for; it ages
   into a normal one (`_choose`, `tick`).
3. Fair shares: among flows the one that has used the least weighted GPU time goes
   first (`Lane`, `_charge`).
4. Loaded models first, but overtaking is bounded by `swap_patience_s` of GPU time (`_choose`).
5. A box that would have to load a model is used only if the request starts sooner there than on the
   boxes that have the model, or the prompt in their cache (`_choose_queue`).
6. The queue is bounded in length and in time (`acquire`, `tick`), and no flow fills it
   for all (`_find_crowding`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

from ollama_proxy.coordination.documents import (
    dump_box,
    dump_grant,
    dump_lane,
    load_box,
    load_grant,
    load_lane,
)
from ollama_proxy.coordination.reasons import explain_wait
from ollama_proxy.coordination.state import (
    Box,
    Decision,
    Estimates,
    FlowQueue,
    Grant,
    Group,
    Lane,
    Outcome,
    Position,
    Refusal,
    Request,
    Waiting,
)

#: Boxes that are compared for a request, and tried when it arrives: if the best ones are not
#: worth a load, none is.
MAX_COMPARED_BOXES, MAX_TRIED_BOXES = 8, 2

#: Queues that are examined for a box without the model.
MAX_COMPARED_QUEUES = 8

#: Timers that are kept before those of requests that have left the queue are removed.
MIN_TIMERS = 64


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The settings `queue`: most that wait per box, the longest wait, GPU time that a loaded
    model may be preferred."""

    max_waiting: int = 100
    max_wait_s: float = 600.0
    swap_patience_s: float = 20.0


class Scheduler:
    """Slots and queue of all boxes."""

    def __init__(self, limits: QueueLimits | None = None) -> None:
        #: The settings `queue`. New ones apply to requests that wait, too, at the next tick.
        self.limits = limits or QueueLimits()
        self._estimates = Estimates()
        self._boxes: dict[str, Box] = {}
        self._groups: dict[Box, Group] = {}
        self._open: dict[Box, None] = {}
        self._waiting: dict[str, Waiting] = {}
        self._running: dict[str, tuple[Grant, FlowQueue]] = {}
        #: The queues of each flow, which share what it is charged.
        self._queues: dict[str, dict[Lane, FlowQueue]] = {}
        #: Time, number and id of requests that time out or become normal then, unless
        #: they have left the queue.
        self._timers: list[tuple[float, int, str]] = []
        #: The longest wait that the timers were set for.
        self._timed_wait_s = self.limits.max_wait_s
        self._arrivals = 0
        self._now = 0.0

    def set_box(
        self,
        name: str,
        now: float,
        *,
        slots: int | None,
        max_loaded: int | None = None,
        is_up: bool = True,
        is_draining: bool = False,
    ) -> list[Decision]:
        """Adds or changes a box; None: no bound. A box that is down is assumed to
        have lost its models."""
        box = self._get_box(name)
        box.slots = math.inf if slots is None else slots
        box.max_loaded = math.inf if max_loaded is None else max_loaded
        box.is_up, box.is_draining = is_up, is_draining
        if not is_up:
            for model in list(box.loaded):
                box.unload(model)
        return self._dispatch([box], now)

    def report_loaded(self, name: str, models: Iterable[str], now: float) -> list[Decision]:
        """Takes in which models a box has loaded."""
        self._get_box(name).report_loaded(models, now)
        return self._dispatch([self._get_box(name)], now)

    def acquire(
        self, request: Request, now: float, *, waited_s: float | None = None
    ) -> list[Decision]:
        """Grants a slot at once, puts the request into the queue, or refuses
        it if the queue is full.

        `waited_s`: for so long it has waited where its place was lost; it is not refused, and times
        out earlier. Raises ValueError if the id is in use, or if there is no candidate.
        """
        if request.id in self._waiting or request.id in self._running or not request.candidates:
            raise ValueError(
                f"request {request.id!r} has a slot or waits already, or has no candidates"
            )
        lane = self._get_lane(request.candidates, request.is_background)
        self._find_group(lane).live += 1
        refused: list[Decision] = []
        if (
            request.waiting_since_s is None
            and waited_s is None
            and all(self._is_full(box) for box in lane.boxes)
        ):
            crowding = self._find_crowding(lane, request)
            if crowding is None:
                self._leave_group(lane)
                return [
                    Refusal(request, "queue_full", self._estimate_wait_s(lane, lane.waiting + 1))
                ]
            refused = [self._refuse(crowding, "queue_full")]
        self._arrivals += 1
        since_s = (
            now - (waited_s or 0.0) if request.waiting_since_s is None else request.waiting_since_s
        )
        self._enqueue(lane, request, self._arrivals, since_s)
        decisions = self._dispatch(self._rank_boxes(lane, request, now), now)
        if request.id in self._waiting:
            self._set_timers(self._waiting[request.id])
        return refused + decisions

    def release(
        self, request_id: str, now: float, outcome: Outcome | None = None
    ) -> list[Decision]:
        """Frees a slot and corrects what its flow was charged; without an
        outcome, that is the wall time.

        An id without a slot is ignored. Nothing is learned from an attempt without an outcome.
        """
        if request_id not in self._running:
            return []
        grant, queue = self._running.pop(request_id)
        box, wall_s = self._boxes[grant.box], max(now - grant.started_s, 0.0)
        gpu_s = outcome.gpu_s if outcome and outcome.gpu_s is not None else wall_s
        earlier_s = outcome.earlier_gpu_s if outcome else 0.0
        self._charge(queue, (earlier_s + gpu_s - grant.cost_s) / grant.request.weight)
        queue.running -= 1
        if outcome:
            box.learn(grant, outcome, gpu_s)
        del box.running[request_id]
        decisions = self._dispatch([box], now)
        self._leave_group(queue.lane)
        return decisions

    def hold(self, request: Request, box_name: str, started_s: float, now: float) -> Grant:
        """Takes in a slot that is held already, since `started_s`, even if the box has none left.
        The request may wait here; then it leaves the queue."""
        lane, box = (
            self._get_lane(request.candidates, request.is_background),
            self._get_box(box_name),
        )
        self._find_group(lane).live += 1
        if waiting := self._waiting.get(request.id):
            self._dequeue(waiting)
            self._leave_group(waiting.queue.lane)
        queue = self._get_queue(lane, request.flow)
        cost_s = self._estimates.expect("service", box_name, lane.boxes[box])
        grant = Grant(
            request, box_name, lane.boxes[box], loads=False, started_s=started_s, cost_s=cost_s
        )
        self._run(grant, queue)
        return grant

    def cancel_all(self, request_ids: Iterable[str], now: float) -> list[Decision]:
        """Takes requests out of the queue, or frees their slots and charges the time until now;
        what is free then goes to none of them."""
        ids = set(request_ids)
        decisions: list[Decision] = []
        for request_id in (
            *sorted(ids & self._waiting.keys()),
            *sorted(ids & self._running.keys()),
        ):
            waiting = self._waiting.get(request_id)
            if waiting is None:
                decisions += self.release(request_id, now)
                continue
            lane = waiting.queue.lane
            self._dequeue(waiting)
            self._leave_group(lane)
            # The box may have been kept free for this request.
            decisions += self._dispatch([box for box in self._open if box in lane.boxes], now)
        return decisions

    def list_requests(self, prefix: str = "") -> list[tuple[str, Grant | None]]:
        """The requests whose ids begin with a prefix, such as the name of a machine, and the slots
        that they hold; None: it waits."""
        grants = {
            **dict.fromkeys(self._waiting),
            **{key: grant for key, (grant, _) in self._running.items()},
        }
        return [(key, grant) for key, grant in grants.items() if key.startswith(prefix)]

    def tick(self, now: float) -> list[Decision]:
        """Does what is due: refuses requests that waited too long, ages background requests,
        reconsiders open boxes."""
        if self._timed_wait_s != self.limits.max_wait_s:
            self._timed_wait_s = self.limits.max_wait_s
            self._timers.clear()
            for waits in self._waiting.values():
                self._set_timers(waits)
        decisions: list[Decision] = []
        while self._timers and self._timers[0][0] <= now:
            waiting = self._find_waiting(heappop(self._timers))
            if waiting is None:
                continue
            if now < waiting.since_s + self.limits.max_wait_s:
                # A background request waits as a normal one from now on, in
                # the order of its arrival.
                self._dequeue(waiting)
                lane = self._get_lane(waiting.request.candidates, is_background=False)
                self._enqueue(lane, waiting.request, waiting.number, waiting.since_s)
            else:
                decisions.append(self._refuse(waiting, "queue_timeout"))
        return decisions + self._dispatch(list(self._open), now)

    def locate(self, request_id: str) -> Position | None:
        """The position of a waiting request in fair order if nothing else arrives."""
        waiting = self._waiting.get(request_id)
        if waiting is None:
            return None
        lane, own = waiting.queue.lane, waiting.queue
        index = own.waiting.index(waiting)
        own_entry = own.entry or (0.0, 0, own)
        others = (entry for entry in lane.order if entry[2] is not own)
        ahead = sum(min(len(entry[2].waiting), index + (entry < own_entry)) for entry in others)
        place = index + ahead + 1
        return Position(
            place, lane.waiting, self._estimate_wait_s(lane, place), explain_wait(lane, self._now)
        )

    # The state as a document.

    def dump(self) -> dict[str, Any]:
        """Everything but the limits, in JSON values; `load` makes a scheduler of it
        that decides the same."""
        groups = list(dict.fromkeys(self._groups.values()))
        # Without those in which nothing waits or runs, and no flow owes anything.
        all_lanes = [lane for group in groups for lane in group.lanes.values()]
        lanes = [
            lane
            for lane in all_lanes
            if not all(queue.is_settled for queue in lane.queues.values())
        ]
        numbers = {lane: number for number, lane in enumerate(lanes)}
        return {
            "arrivals": self._arrivals,
            "boxes": {name: dump_box(box) for name, box in self._boxes.items()},
            "open": [box.name for box in self._open],
            "means": [[*key, mean] for key, mean in self._estimates.means.items()],
            "groups": [[box.name for box in group.boxes] for group in groups],
            "lanes": list(map(dump_lane, lanes)),
            "running": [
                dump_grant(grant, numbers[queue.lane]) for grant, queue in self._running.values()
            ],
        }

    @classmethod
    def load(cls, document: Mapping[str, Any], limits: QueueLimits | None = None) -> Scheduler:
        """The scheduler of a document, which it takes over; the limits may be different ones."""
        new = cls(limits)
        new._arrivals = document["arrivals"]
        new._estimates = Estimates({tuple(key): mean for *key, mean in document["means"]})
        new._boxes = {
            name: load_box(name, box, new._estimates) for name, box in document["boxes"].items()
        }
        new._open = {new._boxes[name]: None for name in document["open"]}
        for names in document["groups"]:
            group = Group({new._boxes[name]: None for name in names})
            new._groups.update(dict.fromkeys(group.boxes, group))
        lanes = [load_lane(lane, new._boxes) for lane in document["lanes"]]
        for lane in lanes:
            group = new._find_group(lane)
            group.lanes[lane.candidates, lane.is_background] = lane
            group.live += lane.waiting
            for queue in lane.queues.values():
                new._queues.setdefault(queue.flow, {})[lane] = queue
                for waiting in queue.waiting:
                    new._waiting[waiting.request.id] = waiting
                    new._set_timers(waiting)
        for fields in document["running"]:
            grant, lane = load_grant(fields, lanes[fields[0]]), lanes[fields[0]]
            queue = lane.queues[grant.request.flow]
            new._running[grant.request.id] = grant, queue
            queue.running += 1
            new._boxes[grant.box].running[grant.request.id] = grant
            new._find_group(lane).live += 1
        return new

    # The decision.

    def _dispatch(self, boxes: list[Box], now: float) -> list[Decision]:
        """Grants the free slots of these boxes until nothing that waits should start there."""
        self._now = now
        grants: list[Decision] = []
        for box in boxes:
            while box.is_open and (queue := self._choose(box, now)):
                lane, model = queue.lane, queue.lane.boxes[box]
                loads = model not in box.loaded
                cost_s = self._estimates.expect("service", box.name, model)
                if loads:
                    cost_s += self._estimates.expect("load", box.name, model)
                    lane.overtaken_s.pop(box, None)
                grant = Grant(queue.waiting[0].request, box.name, model, loads, now, cost_s)
                self._dequeue(queue.waiting[0])
                self._run(grant, queue)
                grants.append(grant)
            if box.is_open:
                self._open[box] = None
            else:
                self._open.pop(box, None)
        return grants

    def _choose(self, box: Box, now: float) -> FlowQueue | None:
        """The queue whose first request should start on a box with a free slot;
        None: the slot stays free."""
        normal, background = box.lanes
        lanes = sorted(normal or background, key=lambda lane: lane.order[0][:2])
        chosen: FlowQueue | None = None
        cold: list[Lane] = []
        for lane in lanes:
            if lane.boxes[box] in box.loaded:
                chosen = self._choose_queue(lane, box, now)
                if chosen:
                    break
                continue
            cold.append(lane)
            if lane.overtaken_s[box] >= self.limits.swap_patience_s and self._choose_queue(
                lane, box, now
            ):
                # Nothing overtakes it any more, even if the slot stays free until
                # a model becomes unused.
                break
        if chosen:
            cost_s = self._estimates.expect("service", box.name, chosen.lane.boxes[box]) / box.slots
            for lane in cold:
                lane.overtaken_s[box] += cost_s
        elif box.can_load():
            chosen = next(
                (queue for lane in cold if (queue := self._choose_queue(lane, box, now))), None
            )
        if chosen:
            box.virtual_s = max(box.virtual_s, min(lanes[0].order[0][2].tag, chosen.tag))
        return chosen

    def _choose_queue(self, lane: Lane, box: Box, now: float) -> FlowQueue | None:
        """The first queue that should use a free slot of this box; None: all of them start
        sooner on other boxes."""
        model = lane.boxes[box]
        if model in box.loaded:
            return next(
                (
                    queue
                    for _, _, queue in lane.order
                    if not self._has_prompt_elsewhere(queue, box, now)
                ),
                None,
            )
        loaded = (each for each in lane.boxes if each.is_usable and lane.boxes[each] in each.loaded)
        others = list(islice(loaded, MAX_COMPARED_BOXES))
        if not others:
            return lane.order[0][2]
        # How many requests the other boxes start until this one has loaded the model: who is
        # behind them gains here.
        request = lane.order[0][2].waiting[0].request
        there_s = min(each.estimate_start_s(request, lane.boxes[each], now) for each in others)
        starts_per_s = sum(
            each.slots / self._estimates.expect("service", each.name, model) for each in others
        )
        started = (box.estimate_start_s(request, model, now) - there_s) * starts_per_s
        if started <= 0:
            return lane.order[0][2]
        behind = range(len(lane.order) - 1, max(len(lane.order) - 1 - MAX_COMPARED_QUEUES, -1), -1)
        queues = ((index, lane.order[index][2]) for index in behind)
        return next(
            (queue for index, queue in queues if index + len(queue.waiting) - 1 >= started), None
        )

    def _has_prompt_elsewhere(self, queue: FlowQueue, box: Box, now: float) -> bool:
        """Whether the first request starts to respond sooner on the box that answered
        the same conversation."""
        request, lane = queue.waiting[0].request, queue.lane
        for end, _ in reversed(request.conversation):
            other = self._estimates.prompts.get((lane.boxes[box], end))
            if other is not None and other is not box and other in lane.boxes and other.is_usable:
                other_s = other.estimate_start_s(request, lane.boxes[other], now)
                return other_s < box.estimate_start_s(request, lane.boxes[box], now)
        return False

    def _rank_boxes(self, lane: Lane, request: Request, now: float) -> list[Box]:
        """Open boxes for an arriving request, best first: soonest to respond, room for
        the model, least busy."""
        fewer = lane.boxes if len(lane.boxes) < len(self._open) else self._open
        boxes = [box for box in fewer if box in lane.boxes and box.is_open]
        boxes = [box for box in boxes if lane.boxes[box] in box.loaded or box.can_load()]
        if len(boxes) > MAX_COMPARED_BOXES:
            loaded = list(
                islice((box for box in boxes if lane.boxes[box] in box.loaded), MAX_COMPARED_BOXES)
            )
            boxes = loaded or boxes[:MAX_COMPARED_BOXES]
        return sorted(
            boxes,
            key=lambda box: (
                box.estimate_response_s(request, lane.boxes[box], now),
                len(box.loaded) >= box.capacity,
                len(box.running) / box.slots,
            ),
        )[:MAX_TRIED_BOXES]

    def _run(self, grant: Grant, queue: FlowQueue) -> None:
        """Takes the slot and charges what is expected."""
        self._running[grant.request.id] = grant, queue
        queue.running += 1
        self._boxes[grant.box].start(grant)
        self._charge(queue, grant.cost_s / grant.request.weight)

    def _charge(self, queue: FlowQueue, tag: float) -> None:
        """Adds to the tags of a flow in the whole group, so that what it uses on one box
        counts on the others."""
        group = self._find_group(queue.lane)
        for lane, each in self._queues[queue.flow].items():
            if self._find_group(lane) is group and not each.is_settled:
                # What it was expected to use may have raised the floor of others, so no more
                # than that is given back.
                each.tag = max(each.tag + tag, min(each.tag, lane.floor))
                lane.sort(each)

    # The queue.

    def _enqueue(self, lane: Lane, request: Request, number: int, since_s: float) -> None:
        queue = self._get_queue(lane, request.flow)
        self._waiting[request.id] = Waiting(request, number, since_s, queue)
        lane.add(self._waiting[request.id])

    def _get_queue(self, lane: Lane, flow: str) -> FlowQueue:
        """The queue of a flow in a lane; idle ones are forgotten from time to time."""
        for idle in lane.prune():
            self._forget(idle)
        queue = lane.queues.get(flow)
        if queue is None:
            queue = lane.queues[flow] = FlowQueue(flow, lane)
            self._queues.setdefault(flow, {})[lane] = queue
        return queue

    def _set_timers(self, waiting: Waiting) -> None:
        """Plans the end of its wait, and its promotion; most timers of requests that
        have left are removed."""
        if len(self._timers) > 4 * len(self._waiting) + MIN_TIMERS:
            self._timers = [each for each in self._timers if self._find_waiting(each)]
            heapify(self._timers)
        waits_s = (self.limits.max_wait_s, self.limits.max_wait_s / 2)
        for wait_s in waits_s[: 1 + waiting.queue.lane.is_background]:
            heappush(self._timers, (waiting.since_s + wait_s, waiting.number, waiting.request.id))

    def _find_waiting(self, timer: tuple[float, int, str]) -> Waiting | None:
        """The request that a timer was set for, if it still waits."""
        waiting = self._waiting.get(timer[2])
        return waiting if waiting and waiting.number == timer[1] else None

    def _dequeue(self, waiting: Waiting) -> None:
        del self._waiting[waiting.request.id]
        waiting.queue.lane.remove(waiting)

    def _refuse(self, waiting: Waiting, code: str) -> Refusal:
        """Takes a request out of the queue."""
        lane = waiting.queue.lane
        self._dequeue(waiting)
        refusal = Refusal(waiting.request, code, self._estimate_wait_s(lane, lane.waiting + 1))
        self._leave_group(lane)
        return refusal

    def _find_crowding(self, lane: Lane, request: Request) -> Waiting | None:
        """The request that makes room for this one in a full queue, so that no flow fills it
        for all: the newest of the flow that has most in it, and at least two more than this
        flow. Background requests make room first, and only for each other if this is one. None:
        there is no such request."""
        waiting: dict[tuple[bool, str], list[Waiting]] = {}
        for each in dict.fromkeys(
            each for box in lane.boxes for lanes in box.lanes for each in lanes
        ):
            for queue in each.queues.values():
                waiting.setdefault((each.is_background, queue.flow), []).extend(queue.waiting)
        own = len(waiting.pop((request.is_background, request.flow), ()))
        background, flow = max(
            waiting, key=lambda key: (key[0], len(waiting[key])), default=(False, "")
        )
        most = waiting.get((background, flow), [])
        if background < request.is_background or (
            background == request.is_background and len(most) < own + 2
        ):
            return None
        first_attempts = (each for each in most if each.request.waiting_since_s is None)
        return max(first_attempts, key=lambda each: each.number, default=None)

    def _is_full(self, box: Box) -> bool:
        """Whether too many wait for a box; a request that may use several boxes
        is shared between them."""
        # Rounded once, so that the order of the lanes does not matter.
        waiting = math.fsum(lane.waiting / len(lane.boxes) for lanes in box.lanes for lane in lanes)
        return waiting >= self.limits.max_waiting and (not box.is_open or any(box.lanes))

    def _estimate_wait_s(self, lane: Lane, place: int) -> float:
        """Seconds, at least 1 and at most the longest wait, until the request at this
        place (from 1) starts."""
        starts_per_s = sum(
            box.slots / self._estimates.expect("service", box.name, model)
            for box, model in lane.boxes.items()
            if box.is_usable
        )
        longest_s = self.limits.max_wait_s
        return min(max(place / starts_per_s, 1.0), longest_s) if starts_per_s else longest_s

    # Boxes and the groups that they form.

    def _get_box(self, name: str) -> Box:
        """The box of this name; one that has not been set yet has no slots."""
        if name not in self._boxes:
            self._boxes[name] = Box(name, self._estimates)
        return self._boxes[name]

    def _find_group(self, lane: Lane) -> Group:
        return self._groups[next(iter(lane.boxes))]

    def _get_lane(self, candidates: tuple[tuple[str, str], ...], is_background: bool) -> Lane:
        """The lane for these candidates; a new one joins the groups of its boxes into one."""
        first = self._groups.get(self._get_box(candidates[0][0]))
        lane = first and first.lanes.get((candidates, is_background))
        if lane:
            return lane
        boxes = {self._get_box(name): model for name, model in candidates}
        found = dict.fromkeys(self._groups.get(box) or Group({box: None}) for box in boxes)
        group, *others = sorted(found, key=lambda each: -len(each.boxes))
        for other in others:
            group.boxes |= other.boxes
            group.lanes |= other.lanes
            group.live += other.live
        for box in (box for each in found for box in each.boxes):
            self._groups[box] = group
        lane = group.lanes[candidates, is_background] = Lane(boxes, is_background=is_background)
        return lane

    def _leave_group(self, lane: Lane) -> None:
        """Counts one request less. A group without any is dissolved: when nobody waits,
        nobody owes anything."""
        group = self._find_group(lane)
        group.live -= 1
        if group.live:
            return
        for each in group.lanes.values():
            for queue in each.queues.values():
                self._forget(queue)
        for box in group.boxes:
            box.virtual_s = 0.0
            del self._groups[box]

    def _forget(self, queue: FlowQueue) -> None:
        queues = self._queues[queue.flow]
        del queues[queue.lane]
        if not queues:
            del self._queues[queue.flow]
