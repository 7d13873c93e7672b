"""Simulated boxes that load models and serve requests, and the two ways to share them.
Seconds of simulated time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from ollama_proxy.coordination import Decision, Grant, Outcome, QueueLimits, Request, Scheduler


@dataclass(slots=True, eq=False)
class Job:
    """A request of the trace, and what became of it. The wait ends with the first
    token, after any load."""

    id: str
    user: str
    model: str
    arrival_s: float
    service_s: float
    is_background: bool = False
    weight: float = 1.0
    start_s: float = -1.0
    end_s: float = -1.0
    attempts: int = 0

    @property
    def wait_s(self) -> float:
        return self.start_s - self.arrival_s


@dataclass(frozen=True, slots=True)
class Trace:
    """Boxes, models and arrivals. `outages` are times in which a box is down: name, from, to."""

    name: str
    title: str
    jobs: list[Job]
    boxes: dict[str, tuple[str, ...]]
    slots: int
    room: int
    load_s: dict[str, float]
    outages: tuple[tuple[str, float, float], ...] = ()


@dataclass(slots=True, eq=False)
class SimulatedBox:
    """What Ollama does: requests start in the order of their arrival; a model replaces one
    that no request uses."""

    name: str
    slots: int
    room: int
    load_s: dict[str, float]
    queue: deque[Job] = field(default_factory=deque)
    running: dict[str, Job] = field(default_factory=dict)
    #: When each loaded model is ready, least recently used first.
    loaded: dict[str, float] = field(default_factory=dict)
    loads: int = 0
    is_up: bool = True

    def start_next(self, now: float) -> tuple[Job, float] | None:
        """Starts the first request of the queue if it can; returns it with the seconds of
        the load that it caused."""
        if not self.queue or len(self.running) >= self.slots:
            return None
        model, load_s = self.queue[0].model, 0.0
        if model not in self.loaded:
            used = {each.model for each in self.running.values()}
            unused = next((each for each in self.loaded if each not in used), None)
            if len(self.loaded) >= self.room:
                if unused is None:
                    return None
                del self.loaded[unused]
            load_s = self.load_s[model]
            self.loads += 1
        job = self.queue.popleft()
        self.loaded[model] = max(self.loaded.pop(model, 0.0), now + load_s)
        self.running[job.id] = job
        job.start_s = self.loaded[model]
        return job, load_s


class FirstComeFirstServed:
    """Every request goes at once to the box with the least requests, and waits
    there: Ollama's own queue."""

    def __init__(self, trace: Trace, boxes: dict[str, SimulatedBox]) -> None:
        self._trace, self._boxes = trace, boxes
        self._homeless: list[Job] = []

    def arrive(self, job: Job, now: float) -> Iterable[tuple[str, str]]:
        boxes = [
            box for box in map(self._boxes.get, self._trace.boxes[job.model]) if box and box.is_up
        ]
        if not boxes:
            self._homeless.append(job)
            return []
        box = min(
            boxes,
            key=lambda each: (len(each.running) + len(each.queue), job.model not in each.loaded),
        )
        return [(job.id, box.name)]

    def end(
        self, job: Job, box: SimulatedBox, now: float, load_s: float
    ) -> Iterable[tuple[str, str]]:
        return []

    def change(self, box: SimulatedBox, now: float) -> Iterable[tuple[str, str]]:
        homeless, self._homeless = self._homeless, []
        moved = [box.queue.popleft() for _ in range(len(box.queue))] if not box.is_up else []
        return [each for job in homeless + moved for each in self.arrive(job, now)]

    def tick(self, now: float) -> Iterable[tuple[str, str]]:
        return []


class FairSharing:
    """The scheduler of the gateway. The cost of each of its decisions is measured."""

    def __init__(self, trace: Trace, boxes: dict[str, SimulatedBox]) -> None:
        # Nothing is refused, so that both ways do the same work.
        self._scheduler = Scheduler(QueueLimits(max_waiting=10**9, max_wait_s=10**9))
        self._candidates = {
            model: tuple((box, model) for box in names) for model, names in trace.boxes.items()
        }
        self.waiting = 0
        #: The call, requests that waited, and the seconds of processor time that the decision took.
        self.costs: list[tuple[str, int, float]] = []
        for box in boxes.values():
            self._decide(
                self._scheduler.set_box, box.name, 0.0, slots=box.slots, max_loaded=box.room
            )
        self.costs.clear()

    def _decide(self, call, *arguments, **options) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
        before = time.thread_time()
        decisions: list[Decision] = call(*arguments, **options)
        self.costs.append((call.__name__, self.waiting, time.thread_time() - before))
        grants = [(each.request.id, each.box) for each in decisions if isinstance(each, Grant)]
        self.waiting -= len(grants)
        return grants

    def arrive(self, job: Job, now: float) -> Iterable[tuple[str, str]]:
        self.waiting += 1
        since_s = job.arrival_s if job.attempts else None
        request = Request(
            job.id,
            job.user,
            self._candidates[job.model],
            weight=job.weight,
            is_background=job.is_background,
            waiting_since_s=since_s,
        )
        return self._decide(self._scheduler.acquire, request, now)

    def end(
        self, job: Job, box: SimulatedBox, now: float, load_s: float
    ) -> Iterable[tuple[str, str]]:
        outcome = Outcome(gpu_s=job.service_s + load_s, load_s=load_s) if job.end_s >= 0 else None
        return self._decide(self._scheduler.release, job.id, now, outcome)

    def change(self, box: SimulatedBox, now: float) -> Iterable[tuple[str, str]]:
        return self._decide(
            self._scheduler.set_box,
            box.name,
            now,
            slots=box.slots,
            max_loaded=box.room,
            is_up=box.is_up,
        )

    def tick(self, now: float) -> Iterable[tuple[str, str]]:
        return self._decide(self._scheduler.tick, now) if self.waiting else []


Policy = FirstComeFirstServed | FairSharing


class Simulation:
    """Runs a trace to its end, when every request has been answered."""

    def __init__(self, trace: Trace, share: type[FirstComeFirstServed] | type[FairSharing]) -> None:
        names = dict.fromkeys(box for boxes in trace.boxes.values() for box in boxes)
        self.boxes = {
            name: SimulatedBox(name, trace.slots, trace.room, trace.load_s) for name in names
        }
        self.jobs = {job.id: job for job in trace.jobs}
        self.policy: Policy = share(trace, self.boxes)
        self._left = len(trace.jobs)
        self._numbers = count()
        self._events: list[tuple[float, int, str, tuple[object, ...]]] = []
        for job in trace.jobs:
            self._plan(job.arrival_s, "arrive", job)
        for name, start_s, end_s in trace.outages:
            self._plan(start_s, "change", self.boxes[name], False)
            self._plan(end_s, "change", self.boxes[name], True)
        self._plan(1.0, "tick")

    def _plan(self, when: float, what: str, *arguments: object) -> None:
        heappush(self._events, (when, next(self._numbers), what, arguments))

    def run(self) -> Simulation:
        """Returns itself with `jobs` and `boxes` as they are at the end."""
        while self._left:
            now, _, what, arguments = heappop(self._events)
            getattr(self, f"_{what}")(now, *arguments)
        return self

    def _arrive(self, now: float, job: Job) -> None:
        self._submit(self.policy.arrive(job, now), now)

    def _submit(self, grants: Iterable[tuple[str, str]], now: float) -> None:
        for job_id, name in grants:
            self.boxes[name].queue.append(self.jobs[job_id])
            self._start(self.boxes[name], now)

    def _start(self, box: SimulatedBox, now: float) -> None:
        while started := box.start_next(now):
            job, load_s = started
            job.attempts += 1
            self._plan(job.start_s + job.service_s, "end", job, box, load_s, job.attempts)

    def _end(self, now: float, job: Job, box: SimulatedBox, load_s: float, attempt: int) -> None:
        if job.attempts != attempt or job.id not in box.running:
            return
        del box.running[job.id]
        job.end_s = now
        self._left -= 1
        self._submit(self.policy.end(job, box, now, load_s), now)
        self._start(box, now)

    def _change(self, now: float, box: SimulatedBox, is_up: bool) -> None:
        """A box that is lost loses its models; what ran there is tried again elsewhere."""
        box.is_up = is_up
        failed = [] if is_up else [*box.running.values()]
        if not is_up:
            box.running.clear()
            box.loaded.clear()
        self._submit(self.policy.change(box, now), now)
        for job in failed:
            self._submit(self.policy.end(job, box, now, 0.0), now)
            self._submit(self.policy.arrive(job, now), now)

    def _tick(self, now: float) -> None:
        self._submit(self.policy.tick(now), now)
        self._plan(now + 1.0, "tick")
