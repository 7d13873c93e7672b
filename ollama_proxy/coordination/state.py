"""What the scheduler knows: boxes, and what waits for them. Pure values: no clock, no I/O.

A lane holds what waits for the same boxes and models with the same priority; in it, every flow has
one queue, first come, first served. The queues are sorted by tag: the weighted GPU-seconds that
their flow has used (start-time fair queueing).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from ollama_proxy.texts import Translatable


class StateUnavailable(Exception):
    """The state that several machines share can't be reached or used; the text says why. It
    contains no password."""


#: What is expected before anything was measured, in seconds; of the prompt per token.
EXPECTED_S = {"service": 5.0, "load": 10.0, "prompt": 0.001}

#: No request is expected to take less, in seconds.
MIN_SERVICE_S = 0.001

#: How much a new measurement moves a running mean.
LEARNING_RATE = 0.2

#: Measured means that are kept, and prompts of one box of which is known that
#: they are in its cache.
MAX_MEANS, MAX_PROMPTS = 4096, 64

#: Queues of idle flows that a lane keeps before it looks for those that can be forgotten.
MIN_QUEUES = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt that needs a slot; `candidates` are the boxes that may serve it, each with
    its name of the model."""

    id: str
    flow: str
    candidates: tuple[tuple[str, str], ...]
    weight: float = 1.0
    is_background: bool = False
    tokens_estimated: int = 0
    #: Hash chain over the messages: the hash of each prefix, and its estimated tokens.
    conversation: tuple[tuple[str, int], ...] = ()
    #: For a further attempt: when the first one arrived, in seconds. It goes to
    #: the head of its lane.
    waiting_since_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """A slot of a box for a request. `cost_s` is the GPU time that its flow
    was charged, in seconds."""

    request: Request
    box: str
    model: str
    loads: bool
    started_s: float
    cost_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that gets no slot: `queue_full` or `queue_timeout`, and when to
    try again, in seconds."""

    request: Request
    code: str
    retry_after_s: float


Decision = Grant | Refusal


@dataclass(frozen=True, slots=True)
class Position:
    """Where a request waits: its place (from 1) among so many for the same models, and the
    expected wait in seconds."""

    place: int
    waiting: int
    wait_s: float
    #: Why it waits, for people.
    reason: Translatable | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt took, in seconds as the box measured them; None: not measured,
    wall time is charged."""

    gpu_s: float | None = None
    load_s: float | None = None
    prompt_s: float | None = None
    #: GPU time of earlier requests that have used the same slot, one after the other.
    earlier_gpu_s: float = 0.0


@dataclass(slots=True, eq=False)
class Estimates:
    """Running means in seconds, per box and model; until there is one, that of the
    model on other boxes."""

    #: Least recently measured first.
    means: dict[tuple[str, ...], float] = field(default_factory=dict)
    #: The box that answered a prompt last, by model and hash: the prompts of all boxes.
    prompts: dict[tuple[str, str], Box] = field(default_factory=dict)

    def learn(self, what: str, box: str, model: str, seconds: float) -> None:
        """Takes a measurement into the means of the model and of the model on this box."""
        for key in ((what, model), (what, model, box)):
            mean = self.means.pop(key, seconds)
            self.means[key] = mean + LEARNING_RATE * (seconds - mean)
        while len(self.means) > MAX_MEANS:
            del self.means[next(iter(self.means))]

    def expect(self, what: str, box: str, model: str) -> float:
        """The seconds that `what` (service, load, or prompt per token) is expected to take."""
        mean = self.means.get((what, model, box))
        return self.means.get((what, model), EXPECTED_S[what]) if mean is None else mean


@dataclass(slots=True, eq=False)
class Box:
    """One server: what it may run, runs and has loaded, and the lanes that wait for it."""

    name: str
    estimates: Estimates
    #: Infinite if the operator set no bound.
    slots: float = 0
    #: How many models fit; infinite if that is not known.
    max_loaded: float = math.inf
    #: The same as its reports suggest, and when a model was last loaded here, in seconds.
    seen_loaded: float = math.inf
    loaded_at_s: float = 0.0
    is_up: bool = False
    is_draining: bool = False
    running: dict[str, Grant] = field(default_factory=dict)
    #: Loaded models, least recently used first, and when each is expected to be ready, in seconds.
    loaded: dict[str, float] = field(default_factory=dict)
    #: The prompts that are probably still in the KV cache, one per slot: model and hash.
    prompts: dict[tuple[str, str], None] = field(default_factory=dict)
    #: Lanes with waiting requests: those of normal and those of background priority.
    lanes: tuple[dict[Lane, None], dict[Lane, None]] = field(default_factory=lambda: ({}, {}))
    #: Virtual time: the tag of the first in fair order when a slot was last granted.
    virtual_s: float = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether requests may start here."""
        return self.is_up and not self.is_draining

    @property
    def capacity(self) -> float:
        """How many models fit, as far as it is known."""
        return min(self.max_loaded, self.seen_loaded)

    @property
    def is_open(self) -> bool:
        """Whether a slot is free and may be used."""
        return self.is_usable and len(self.running) < self.slots

    def can_load(self) -> bool:
        """Whether there is room for a model, or one that no request uses can make room."""
        return len(self.loaded) < self.capacity or self._unused_model() is not None

    def _unused_model(self) -> str | None:
        used = {grant.model for grant in self.running.values()}
        return next((model for model in self.loaded if model not in used), None)

    def start(self, grant: Grant) -> None:
        """Takes a slot; a model that has to be loaded replaces the one that
        was unused for longest."""
        load_s = self.estimates.expect("load", self.name, grant.model) if grant.loads else 0.0
        while (
            grant.loads and len(self.loaded) >= self.capacity and (unused := self._unused_model())
        ):
            self.unload(unused)
        if grant.loads:
            self.loaded_at_s = grant.started_s
        self.loaded[grant.model] = max(self.loaded.pop(grant.model, 0.0), grant.started_s + load_s)
        self.running[grant.request.id] = grant
        for end, _ in grant.request.conversation[-1:]:
            # The prompt is in the cache here, and not where it was answered before.
            prompt = grant.model, end
            if other := self.estimates.prompts.pop(prompt, None):
                del other.prompts[prompt]
            self.prompts[prompt] = None
            self.estimates.prompts[prompt] = self
            while len(self.prompts) > min(self.slots, MAX_PROMPTS):
                oldest = next(iter(self.prompts))
                del self.prompts[oldest], self.estimates.prompts[oldest]

    def unload(self, model: str) -> None:
        """Forgets a model and the prompts in its cache."""
        self.loaded.pop(model, None)
        for prompt in [each for each in self.prompts if each[0] == model]:
            del self.prompts[prompt], self.estimates.prompts[prompt]

    def report_loaded(self, models: Iterable[str], now: float) -> None:
        """Replaces what was assumed by what the box reports; a model in use may still be loading.

        Learns how many models fit, unless that is known: no more than there are now, if one is gone
        that was last used before another one was loaded.
        """
        reported = set(models)
        there = reported | {grant.model for grant in self.running.values()}
        gone = self.loaded.keys() - there
        if self.max_loaded == math.inf:
            if there and any(self.loaded[model] < self.loaded_at_s for model in gone):
                self.seen_loaded = len(there)
            self.seen_loaded = max(self.seen_loaded, len(reported))
        for model in sorted(gone):
            self.unload(model)
        for model in sorted(reported):
            self.loaded[model] = min(now, self.loaded.get(model, now))

    def learn(self, grant: Grant, outcome: Outcome, gpu_s: float) -> None:
        """Takes what an attempt took into the running means."""
        load_s = (outcome.load_s or 0.0) if grant.loads else 0.0
        self.estimates.learn("service", self.name, grant.model, max(gpu_s - load_s, MIN_SERVICE_S))
        if load_s:
            self.estimates.learn("load", self.name, grant.model, load_s)
        tokens = grant.request.tokens_estimated
        if outcome.prompt_s is not None and tokens and not grant.request.conversation[1:]:
            self.estimates.learn("prompt", self.name, grant.model, outcome.prompt_s / tokens)

    def estimate_response_s(self, request: Request, model: str, now: float) -> float:
        """Seconds from a slot to the first token: the rest of a load, and the part of the
        prompt that is not cached."""
        ready = self.loaded.get(model)
        load_s = (
            self.estimates.expect("load", self.name, model)
            if ready is None
            else max(ready - now, 0.0)
        )
        tokens = request.tokens_estimated
        if tokens and self.prompts:
            cached = (
                size for end, size in reversed(request.conversation) if (model, end) in self.prompts
            )
            tokens = max(tokens - next(cached, 0), 0)
        return load_s + tokens * self.estimates.expect("prompt", self.name, model)

    def estimate_start_s(self, request: Request, model: str, now: float) -> float:
        """Seconds until the first token of a request, after what runs and is loaded here now. A
        request that is overdue is expected to take that time once more."""
        free_s = 0.0
        if len(self.running) >= self.slots:
            free_s = min(
                (abs(each.started_s + each.cost_s - now) for each in self.running.values()),
                default=math.inf,
            )
        return free_s + self.estimate_response_s(request, model, now)


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in the queue, with its place in the order of arrival."""

    request: Request
    number: int
    since_s: float
    queue: FlowQueue


#: Tag, number of the first request, and the queue, which is never compared
#: because numbers are unique.
Entry = tuple[float, int, "FlowQueue"]


@dataclass(slots=True, eq=False)
class FlowQueue:
    """What waits of one flow in one lane. `tag` is in GPU-seconds divided by the weight."""

    flow: str
    lane: Lane
    tag: float = 0.0
    waiting: deque[Waiting] = field(default_factory=deque)
    #: Slots that its requests hold.
    running: int = 0
    entry: Entry | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is idle and owes nothing: a new queue would start with the same tag."""
        return not self.waiting and not self.running and self.tag <= self.lane.floor


class Lane:
    """Queues of all flows that wait for the same boxes and models with the same priority."""

    def __init__(self, boxes: dict[Box, str], *, is_background: bool) -> None:
        self.boxes = boxes
        #: The same by name, as its requests have them.
        self.candidates = tuple((box.name, model) for box, model in boxes.items())
        self.is_background = is_background
        #: The queues that are not empty, in fair order.
        self.order: list[Entry] = []
        self.waiting = 0
        #: GPU time per box that requests for loaded models took ahead of the first
        #: request here, in seconds.
        self.overtaken_s: defaultdict[Box, float] = defaultdict(float)
        self.queues: dict[str, FlowQueue] = {}
        self._prune_at = MIN_QUEUES

    @property
    def floor(self) -> float:
        """The tag with which an idle flow starts."""
        return max(box.virtual_s for box in self.boxes)

    def add(self, waiting: Waiting) -> None:
        """Puts a request behind the earlier ones of its flow, or in front of them if it
        is a further attempt."""
        queue = waiting.queue
        if not self.waiting:
            for box in self.boxes:
                box.lanes[self.is_background][self] = None
        if not queue.waiting:
            # An idle flow accumulates no credit.
            queue.tag = max(queue.tag, self.floor)
        if waiting.request.waiting_since_s is not None:
            retries = takewhile(
                lambda each: each.request.waiting_since_s is not None, queue.waiting
            )
            earlier = takewhile(lambda each: each.since_s <= waiting.since_s, retries)
            queue.waiting.insert(sum(1 for _ in earlier), waiting)
        elif queue.waiting and waiting.number < queue.waiting[-1].number:
            insort(queue.waiting, waiting, key=lambda each: each.number)
        else:
            queue.waiting.append(waiting)
        self.waiting += 1
        self.sort(queue)

    def remove(self, waiting: Waiting) -> None:
        """Takes a request out of its queue."""
        waiting.queue.waiting.remove(waiting)
        self.waiting -= 1
        self.sort(waiting.queue)
        if not self.waiting:
            self.overtaken_s.clear()
            for box in self.boxes:
                del box.lanes[self.is_background][self]

    def sort(self, queue: FlowQueue) -> None:
        """Puts a queue at its place in the fair order, after its tag or its
        first request has changed."""
        if queue.entry is not None:
            del self.order[bisect_left(self.order, queue.entry)]
            queue.entry = None
        if queue.waiting:
            first = queue.waiting[0]
            is_retry = first.request.waiting_since_s is not None
            queue.entry = (-math.inf if is_retry else queue.tag, first.number, queue)
            insort(self.order, queue.entry)

    def prune(self) -> list[FlowQueue]:
        """Forgets and returns the queues of idle flows that owe nothing."""
        if len(self.queues) < self._prune_at:
            return []
        idle = [queue for queue in self.queues.values() if queue.is_settled]
        for queue in idle:
            del self.queues[queue.flow]
        self._prune_at = max(MIN_QUEUES, 2 * len(self.queues))
        return idle


@dataclass(slots=True, eq=False)
class Group:
    """Boxes that compete for the same requests. Within it, what a flow used on
    one box counts on all."""

    boxes: dict[Box, None]
    lanes: dict[tuple[object, bool], Lane] = field(default_factory=dict)
    #: Requests that wait or run.
    live: int = 0


@dataclass(slots=True)
class BoxView:
    """What one worker says of a box."""

    slots: int | None
    is_draining: bool = False
    is_up: bool = True
    loaded: list[str] = field(default_factory=list)
