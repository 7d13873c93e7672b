"""Slots, queue and limits for all workers of a machine: the coordinator without its process.

Workers are sessions that send frames and get frames. A worker that has lost the coordinator runs
one of these itself, with its share of the slots and limits. Pure but for the storage of the limits,
and the scheduler's if it is in Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, timedelta
from functools import partial
from math import ceil
from typing import Any

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import (
    RATE_LIMIT,
    Allowance,
    Limiter,
    LimitRefusal,
    Part,
    Spent,
    Subject,
)
from ollama_proxy.coordination.scheduler import QueueLimits, Scheduler
from ollama_proxy.coordination.state import (
    BoxView,
    Decision,
    Grant,
    Outcome,
    Position,
    Refusal,
    Request,
)
from ollama_proxy.coordination.store import SlotScheduler, Store, make_share
from ollama_proxy.texts import text_to_json
from ollama_proxy.version import VERSION


@dataclass(slots=True, eq=False)
class Entry:
    """A request that holds a slot or waits for one."""

    session: Session
    #: Its id in the frames of its worker.
    id: str
    request: Request
    #: For people: token, user, model, stream.
    about: Frame
    asked_s: float
    #: The exchange, if it has passed limits with this first attempt; what is left of them.
    exchange: str = ""
    allowance: Frame | None = None
    grant: Grant | None = None
    granted_s: float = 0.0

    def reply(self, op: str, **fields: Any) -> None:
        """Sends a frame about this request."""
        frame: Frame = {"op": op, "id": self.id, **fields}
        if self.allowance is not None:
            frame["allowance"] = self.allowance
        self.session.send(frame)


class Coordinator:
    """The state that workers share."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        settle_s: float = 0.0,
        resettle_s: float = 0.0,
        clock: Clock = SYSTEM_CLOCK,
        stand_in: Callable[[], Store] = lambda: make_share(1.0),
    ) -> None:
        """`settle_s`: for so long no slot is granted at first, because workers may hold some that
        they have not announced yet. `resettle_s`: the same when a worker announces slots, because
        others may have granted some as well. `stand_in` makes the store that takes over when the
        other one can't be reached; see `use`."""
        #: Where slots and limits are kept now.
        self.store = store or Store(Scheduler(), Limiter())
        self._stand_in = stand_in
        self._queue, self._timezone = QueueLimits(), "UTC"
        #: `now` returns the time that the scheduler gets, in seconds.
        self._clock, self.now = clock, clock.monotonic
        self._settles_s: float | None = clock.monotonic() + settle_s if settle_s else None
        self._resettle_s = resettle_s
        #: The connected workers.
        self.sessions: dict[int, Session] = {}
        self._opened = 0
        #: Whether what has been used is recorded.
        self.has_records = False
        self._entries: dict[str, Entry] = {}
        #: Of workers that gave a slow coordinator up, by their process ids: what they
        #: hold until they are back.
        self.detached: dict[int, Session] = {}
        #: What `announce` has said.
        self._announced: dict[str, Grant | None] = {}

    def open(self, send: Callable[[Frame], None]) -> Session:
        """A new session; `send` takes the frames for its worker, and must not wait."""
        self._opened += 1
        session = self.sessions[self._opened] = Session(self, self._opened, send)
        return session

    def tick(self) -> None:
        """Does what is due; see Scheduler.tick. To be called several times a second."""
        if self._settles_s is not None and self._settles_s <= self.now():
            self._settles_s = None
            for name in self._box_names():
                self.set_box(name)
        self._decide(lambda scheduler: scheduler.tick(self.now()))
        self._call_back(entry for entry in self._entries.values() if entry.grant is None)

    def announce(self) -> list[tuple[Request, str | None, float]]:
        """What holds a slot (with its box) or waits (None), and since when, for a new store."""
        self._announced = {key: each.grant for key, each in self._entries.items()}
        return [
            (each.request, each.grant.box, each.granted_s)
            if each.grant
            else (each.request, None, each.asked_s)
            for each in self._entries.values()
        ]

    def resume(self, store: Store) -> None:
        """Goes on with a store that knows what `announce` said, and tells it what
        has changed since then."""
        known, self._announced = self._announced, {}
        same = {
            key
            for key, grant in known.items()
            if key in self._entries and self._entries[key].grant is grant
        }
        self.use(store, known=same, gone=known.keys() - self._entries.keys())

    def use(
        self, store: Store, known: Set[str] = frozenset(), gone: Set[str] = frozenset()
    ) -> None:
        """Goes on with another store, and tells it everything but the requests that it knows:
        boxes, what is held, and what waits. `gone`: what it knows, too, and what has ended since;
        the slots of these may have changed hands."""
        self.store = store
        store.scheduler.limits = self._queue
        store.limiter.set_timezone(self._timezone)
        entries = [(key, entry) for key, entry in self._entries.items() if key not in known]
        with self._falling_back():
            for session in self.sessions.values():
                session.announce_exchanges()
            for key, entry in entries:
                if entry.grant is not None:
                    self.hold(key, entry, entry.grant.box, self.now() - entry.granted_s)
            self.deliver(store.scheduler.cancel_all(gone, self.now()))
            for name in self._box_names():
                self.set_box(name)
            for key, entry in entries:
                if entry.grant is None:
                    entry.request = replace(entry.request, waiting_since_s=entry.asked_s)
                    self.acquire(key, entry)
        for session in self.sessions.values():
            session.send({"op": "store", "is_shared": self.store.is_shared})

    @contextmanager
    def _falling_back(self) -> Iterator[None]:
        """What can't be done because the store is unavailable is done by the one that takes over:
        it is told of all requests, and so of the one that this is about."""
        store = self.store
        try:
            yield
        except store.failures as error:
            if self.store is store:
                store.note_lost(error)
                self.use(self._stand_in())

    def _decide(self, decide: Callable[[SlotScheduler], list[Decision]]) -> None:
        with self._falling_back():
            self.deliver(decide(self.store.scheduler))

    def _box_names(self) -> dict[str, None]:
        return {name: None for session in self.sessions.values() for name in session.boxes}

    def deliver(self, decisions: Iterable[Decision]) -> None:
        """Tells workers what was decided about their requests."""
        for decision in decisions:
            entry = self._entries.get(decision.request.id)
            if entry is None:
                self._cancel(decision.request.id)
            elif entry.grant is not None:
                continue  # by the one that has stood in meanwhile; the store knows
            elif isinstance(decision, Refusal):
                del self._entries[decision.request.id]
                entry.session.give_back(entry.exchange)
                entry.reply(
                    "refused", code=decision.code, retry_after_s=ceil(decision.retry_after_s)
                )
            else:
                entry.grant, entry.granted_s = decision, self.now()
                entry.reply("granted", box=decision.box, loads=decision.loads)

    # What a session asks for.

    def configure(self, queue: QueueLimits, timezone: str) -> None:
        """Applies the settings that are not about boxes."""
        self._queue, self.store.scheduler.limits = queue, queue
        if timezone != self._timezone:
            self._timezone = timezone
            self.store.limiter.set_timezone(timezone)

    def set_box(self, name: str) -> None:
        """Takes in what the sessions say of a box: it is up as long as one of them can reach it,
        and has the slots that the last one was configured with."""
        views = [session.boxes[name] for session in self.sessions.values() if name in session.boxes]
        slots = views[-1].slots if views else 0
        if slots is not None and self.store.share < 1:
            slots = max(1, int(slots * self.store.share))
        is_up = any(view.is_up for view in views)
        is_draining = self._settles_s is not None or (bool(views) and views[-1].is_draining)
        self._decide(
            lambda scheduler: scheduler.set_box(
                name, self.now(), slots=slots, is_up=is_up, is_draining=is_draining
            )
        )

    def report_loaded(self, name: str, models: list[str]) -> None:
        """Takes in which models a box has loaded."""
        self._decide(lambda scheduler: scheduler.report_loaded(name, models, self.now()))

    def acquire(self, key: str, entry: Entry) -> None:
        """Asks the scheduler for a slot."""
        self._entries[key] = entry
        self._decide(lambda scheduler: scheduler.acquire(entry.request, self.now()))
        if key in self._entries and entry.grant is None:
            self._call_back([entry])

    def settle_again(self) -> None:
        """Grants no slot for a while: a worker has granted some by itself, and others may have."""
        if self._resettle_s and self._settles_s is None:
            self._settles_s = self.now() + self._resettle_s
            for name in self._box_names():
                self.set_box(name)

    def hold(self, key: str, entry: Entry, box: str, age_s: float) -> None:
        """Takes in a slot that a worker holds already."""
        now = self.now()
        self._entries[key], entry.granted_s = entry, now - age_s
        with self._falling_back():
            entry.grant = self.store.scheduler.hold(entry.request, box, entry.granted_s, now)

    def release(self, key: str, outcome: Outcome | None) -> None:
        """Ends a request, whether it holds a slot or waits."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        if entry.grant is None:
            self._cancel(key)
        else:
            self._decide(lambda scheduler: scheduler.release(key, self.now(), outcome))

    def _cancel(self, key: str) -> None:
        self._decide(lambda scheduler: scheduler.cancel_all([key], self.now()))

    def rename(self, key: str, about: Frame, age_s: float) -> None:
        """The slot of a request is used by another one, for so long."""
        if entry := self._entries.get(key):
            entry.about, entry.granted_s = about, self.now() - age_s

    def _call_back(self, entries: Iterable[Entry]) -> None:
        """Asks the workers for slots that they keep although these requests wait for the boxes."""
        boxes = list(dict.fromkeys(name for each in entries for name, _ in each.request.candidates))
        if boxes:
            for session in self.sessions.values():
                session.send({"op": "recall", "boxes": boxes})

    def locate(self, key: str) -> None:
        """Tells the worker where a request waits, if it does."""
        entry, position = self._entries.get(key), self._find_position(key)
        if entry is not None and position is not None:
            entry.reply(
                "queued", place=position.place, waiting=position.waiting, wait_s=position.wait_s
            )

    def _find_position(self, key: str) -> Position | None:
        position: Position | None = None
        with self._falling_back():
            position = self.store.scheduler.locate(key)
        return position

    # Limits.

    def admit(
        self, key: str, subjects: list[Subject], tokens: int, count: int = 1
    ) -> LimitRefusal | Allowance:
        """Charges an exchange, or refuses it: see Limiter.admit."""
        result: LimitRefusal | Allowance | None = None
        with self._falling_back():
            result = self.store.limiter.admit(key, subjects, tokens, count)
        return result or self.store.limiter.admit(key, subjects, tokens, count)

    def correct(self, change: Callable[[Limiter], None]) -> None:
        """Changes what the limits count for an exchange that was admitted."""
        with self._falling_back():
            change(self.store.limiter)

    def describe_limits(self, subjects: list[Subject]) -> dict[str, dict[str, Frame]]:
        """What is left of each limit, by the key of its subject and its name; empty if the
        store is lost just now."""
        found: dict[str, dict[str, Frame]] = {}
        with self._falling_back():
            found = self.store.limiter.describe(subjects)
        return found

    def close(self, session: Session, keys: Sequence[str]) -> None:
        """Ends a session and its requests; slots that are free then go to none of these, and what
        it says of boxes counts no more."""
        for key in keys:
            self._entries.pop(key, None)
        self._decide(lambda scheduler: scheduler.cancel_all(keys, self.now()))
        self.detached = {pid: each for pid, each in self.detached.items() if each is not session}
        if self.sessions.pop(session.number, None):
            for name in session.boxes:
                self.set_box(name)

    def status(self) -> Frame:
        """Boxes, and what runs and waits on all machines, as the status document has them."""
        own = self.describe()
        counts = {box["name"]: box for box in own["boxes"]}
        for other in self.store.read_statuses():
            own["running"] += other["running"]
            own["waiting"] += other["waiting"]
            for box in other["boxes"]:
                for what in ("running", "waiting"):
                    counts.get(box["name"], box)[what] += box[what]
        own["waiting"].sort(key=lambda row: row["position"])
        return own | {"machines": self.store.count_machines()}

    def describe(self) -> Frame:
        """The status of this machine's workers."""
        running, waiting, boxes = list[Frame](), list[Frame](), list[Frame]()
        counts = {name: [0, 0] for name in self._box_names()}
        for key, each in self._entries.items():
            row: Frame = {"id": each.id, **each.about}
            if each.grant is not None:
                since = self._clock.now(UTC) - timedelta(seconds=self.now() - each.granted_s)
                running.append(
                    row | {"upstream": each.grant.box, "since": since.isoformat(timespec="seconds")}
                )
                counts.setdefault(each.grant.box, [0, 0])[0] += 1
                continue
            names = [name for name, _ in each.request.candidates]
            position = self._find_position(key)  # None: the store is lost just now
            wait_s, reason = (
                (round(position.wait_s, 1), position.reason or "") if position else (None, "")
            )
            waiting.append(
                row
                | {
                    "box": ",".join(names),
                    "position": position.place if position else 0,
                    "waited_s": round(self.now() - each.asked_s, 1),
                    "wait_s": wait_s,
                    "reason": text_to_json(reason),
                }
            )
            for name in names:
                counts.setdefault(name, [0, 0])[1] += 1
        for name in self._box_names():
            view = next(
                each.boxes[name] for each in reversed(self.sessions.values()) if name in each.boxes
            )
            box = {"name": name, "up": view.is_up, "concurrency": view.slots, "loaded": view.loaded}
            boxes.append(box | dict(zip(("running", "waiting"), counts[name], strict=True)))
        return {"boxes": boxes, "running": running, "waiting": waiting}


class Session:
    """One worker: what it holds and waits for."""

    def __init__(
        self, coordinator: Coordinator, number: int, send: Callable[[Frame], None]
    ) -> None:
        self.number = number
        self.send = send
        self.boxes: dict[str, BoxView] = {}
        #: The worker has given this coordinator up, and is about to come back.
        self.is_detached = False
        self._coordinator = coordinator
        self._requests: dict[str, None] = {}
        #: Exchanges that passed their limits, and which those are.
        self._exchanges: dict[str, list[Subject]] = {}
        #: By `op`; the process of the coordinator adds others.
        self.handlers: dict[str, Callable[[Frame], None]] = {
            "hello": lambda frame: send({"op": "welcome", "version": VERSION}),
            "announce": self.announce,
            "detach": self.detach,
            "settings": self.configure,
            "box": self.report_box,
            "acquire": self.acquire,
            "locate": lambda frame: coordinator.locate(self._key(frame["id"])),
            "reuse": lambda frame: coordinator.rename(
                self._key(frame["id"]), frame["about"], frame["age_s"]
            ),
            "release": self.release,
            "end": self.end,
            "used": self.settle_ahead,
            "status": lambda frame: send(
                {"op": "status", "id": frame["id"], "status": coordinator.status()}
            ),
            "limits": self.describe_limits,
        }

    def handle(self, frame: Frame) -> None:
        """Does what a frame asks for. Frames of a newer version are ignored."""
        handler = self.handlers.get(frame.get("op", ""))
        if handler:
            handler(frame)

    def close(self) -> None:
        """Releases everything that the worker holds."""
        for exchange in list(self._exchanges):
            self.end({"exchange": exchange, "spent": None})
        keys = [self._key(each) for each in self._requests]
        self._requests.clear()
        self._coordinator.close(self, keys)

    def give_back(self, exchange: str) -> None:
        """The exchange was refused after all, so it uses up nothing."""
        if self._exchanges.pop(exchange, None):
            self._coordinator.correct(lambda limiter: limiter.settle(self._key(exchange), None))

    def announce_exchanges(self) -> None:
        """Tells another limiter which exchanges run."""
        for exchange, subjects in self._exchanges.items():
            self._coordinator.correct(
                partial(Limiter.hold, exchange_id=self._key(exchange), subjects=subjects)
            )

    def _key(self, name: str) -> str:
        return f"{self.number}/{name}"

    # What a worker asks for, by the frame.

    def announce(self, frame: Frame) -> None:
        """What a worker holds that has lost another coordinator."""
        # A shared store still counts what they were charged.
        is_shared = self._coordinator.store.is_shared
        # Quotas are raised to what the records have, again after each announcement; what
        # is charged twice stays.
        keeps_spent = is_shared and not self._coordinator.has_records
        for exchange, subjects, charged in frame.get("exchanges", ()):
            limits = self._exchanges[exchange] = [Subject(*each) for each in subjects]
            key, tokens = self._key(exchange), charged if is_shared else 0
            self._coordinator.correct(
                partial(Limiter.hold, exchange_id=key, subjects=limits, tokens=tokens)
            )
        for end in frame.get("ended", ()):
            self.end(end if keeps_spent else end | {"spent": None})
        if frame.get("held"):
            self._coordinator.settle_again()
        for held in frame.get("held", ()):
            entry = self._read_entry(held)
            self._requests[entry.id] = None
            self._coordinator.hold(self._key(entry.id), entry, held["box"], held["age_s"])
        # The worker is back, and has said what it holds: what its last session held is no more.
        if before := self._coordinator.detached.pop(frame.get("worker", 0), None):
            before.close()

    def detach(self, frame: Frame) -> None:
        """The worker gives this coordinator up for a moment, and its requests go on: nobody gets
        their slots yet. See `announce` for what it does next."""
        self.is_detached = True
        self._coordinator.detached[frame["worker"]] = self

    def configure(self, frame: Frame) -> None:
        """The settings of a worker; boxes that it no longer names are gone."""
        self._coordinator.configure(QueueLimits(**frame["queue"]), frame["timezone"])
        before, self.boxes = self.boxes, {}
        for name, box in frame["boxes"].items():
            view = self.boxes[name] = before.pop(name) if name in before else BoxView(None)
            view.slots, view.is_draining = box["slots"], box["is_draining"]
        for name in (*self.boxes, *before):
            self._coordinator.set_box(name)

    def report_box(self, frame: Frame) -> None:
        """What a worker found out about a box."""
        view = self.boxes.get(frame["name"])
        if view is None:
            return
        if view.is_up != frame["is_up"]:
            view.is_up = frame["is_up"]
            self._coordinator.set_box(frame["name"])
        if frame["loaded"] is not None:
            view.loaded = frame["loaded"]
            self._coordinator.report_loaded(frame["name"], view.loaded)

    def acquire(self, frame: Frame) -> None:
        """Checks the limits, and asks for a slot."""
        allowance = self._check_limits(frame) if frame["is_limited"] else None
        if allowance is None and frame["is_limited"]:
            return
        entry = self._read_entry(frame)
        entry.allowance = allowance
        entry.exchange = frame["exchange"] if allowance else ""
        if not frame["candidates"]:
            entry.reply("granted", box="", loads=False)
            return
        self._requests[entry.id] = None
        self._coordinator.acquire(self._key(entry.id), entry)
        self._coordinator.locate(self._key(entry.id))

    def _check_limits(self, frame: Frame) -> Frame | None:
        """What is left of the limits; None if the request was refused. Only the first one
        of an exchange uses them up; the others belong to an exchange that has passed, or
        has just been refused."""
        exchange, subjects = frame["exchange"], frame.get("subjects")
        if subjects is None and exchange in self._exchanges:
            return {}
        limits = [Subject(*each) for each in subjects or ()]
        passed: LimitRefusal | Allowance
        if subjects is None:
            passed = LimitRefusal(RATE_LIMIT, "requests_per_minute", "token:", 1)
        else:
            passed = self._coordinator.admit(self._key(exchange), limits, frame["tokens"])
        if isinstance(passed, LimitRefusal):
            refusal = asdict(passed) | {"allowance": passed.allowance.to_json()}
            self.send({"op": "refused", "id": frame["id"], **refusal})
            return None
        self._exchanges[exchange] = limits
        if frame.get("ahead"):
            self._admit_ahead(frame, limits, passed)
        return passed.to_json()

    def _admit_ahead(self, frame: Frame, limits: list[Subject], passed: Allowance) -> None:
        """Admits further requests of the same flow in advance, if its limits are far
        away, and no others than those per minute: the next request must know what this
        one has used of a quota."""
        exchange, tokens, count = f"{frame['exchange']}+", frame["tokens"], 0
        if all(name.endswith("_per_minute") for subject in limits for name in subject.limits):
            # So many that they use up only a hundredth of what is left.
            charged = ((passed.requests, 1), (passed.tokens, max(1, tokens)))
            count = min(
                [
                    frame["ahead"],
                    *(left.remaining // (100 * each) for left, each in charged if left),
                ]
            )
        if count and isinstance(
            self._coordinator.admit(self._key(exchange), limits, tokens, count), LimitRefusal
        ):
            count = 0  # other machines were faster
        if count:
            self._exchanges[exchange] = limits
        ahead = {"flow": frame["flow"], "exchange": exchange, "count": count, "tokens": tokens}
        self.send({"op": "ahead", **ahead, "allowance": passed.to_json()})

    def _read_entry(self, frame: Frame) -> Entry:
        now = self._coordinator.now()
        waited_s = frame.get("waited_s")
        request = Request(
            self._key(frame["id"]),
            frame["flow"],
            tuple((box, model) for box, model in frame["candidates"]),
            weight=frame["weight"],
            is_background=frame["background"],
            tokens_estimated=frame["tokens"],
            conversation=tuple((end, tokens) for end, tokens in frame.get("conversation", ())),
            waiting_since_s=None if waited_s is None else now - waited_s,
        )
        return Entry(self, frame["id"], request, frame["about"], now)

    def release(self, frame: Frame) -> None:
        """Ends a request, which holds a slot or waits."""
        self._requests.pop(frame["id"], None)
        outcome = frame.get("outcome")
        self._coordinator.release(self._key(frame["id"]), Outcome(**outcome) if outcome else None)

    def end(self, frame: Frame) -> None:
        """Charges an exchange for what it has used; those that were not admitted are ignored."""
        exchange, spent = frame["exchange"], Spent(**(frame["spent"] or {}))
        if self._exchanges.pop(exchange, None):
            self._coordinator.correct(lambda limiter: limiter.settle(self._key(exchange), spent))

    def settle_ahead(self, frame: Frame) -> None:
        """What has become of requests that were admitted in advance."""
        for exchange, ended, tokens, unused, is_over in frame["advances"]:
            part = Part(ended, tokens, unused)
            self._coordinator.correct(
                partial(Limiter.settle_part, exchange_id=self._key(exchange), part=part)
            )
            if is_over:
                self.end({"exchange": exchange, "spent": None})

    def describe_limits(self, frame: Frame) -> None:
        """Sends what is left of the limits of subjects."""
        left = self._coordinator.describe_limits([Subject(*each) for each in frame["subjects"]])
        self.send({"op": "limits", "id": frame["id"], "left": left})
