"""What a worker's requests hold: an admission for each exchange, and a ticket for
each of its attempts."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
import gevent.event

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.advances import Advance, Advances
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.kept_slots import KEPT_S, KeptSlots, Slot
from ollama_proxy.coordination.limits import QUOTA, RATE_LIMIT, Allowance, Spent, Subject
from ollama_proxy.coordination.state import Outcome, Position
from ollama_proxy.errors import GatewayError, QueueFull, QueueTimeout, QuotaExceeded, RateLimited

if TYPE_CHECKING:  # the coordinator's process needs none of it
    from ollama_proxy.upstreams import Call

#: Seconds that a heartbeat waits for a new position.
LOCATE_S = 0.5

_QUEUE_ERRORS: dict[str, type[GatewayError]] = {
    "queue_full": QueueFull,
    "queue_timeout": QueueTimeout,
}
_LIMIT_ERRORS: dict[str, type[RateLimited]] = {RATE_LIMIT: RateLimited, QUOTA: QuotaExceeded}


class Flow(NamedTuple):
    """Who asks for slots: a token, or a user behind one."""

    name: str
    weight: float = 1.0
    is_background: bool = False
    #: Whose limits apply: those of the token, then those of the user.
    subjects: tuple[Subject, ...] = ()


class Ticket:
    """One attempt's request for a slot."""

    def __init__(
        self,
        admission: Admission,
        call: Call,
        candidates: Sequence[tuple[str, str]],
        conversation: Sequence[tuple[str, int]],
        waited_s: float | None,
        *,
        asks_limits: bool,
    ) -> None:
        """`asks_limits`: it is the first one of its exchange, so that the limits decide, too."""
        self.admission = admission
        self._call = call
        self._candidates, self._conversation = candidates, conversation
        self._waited_before_s = waited_s
        self._asks_limits = asks_limits
        #: Of its frames; "": it has not asked yet.
        self.id = ""
        self.is_decided = False
        self._failure: GatewayError | None = None
        #: What wakes the greenlet that waits, and whether a new position does, too.
        self._woken: gevent.event.Event | None = None
        self._awaits_position = False
        clock = admission.requests.clock
        #: Since when the coordinator owes the first answer, in seconds on the monotonic clock;
        #: None: it has answered.
        self.unanswered_s: float | None = clock.monotonic()
        self.asked_s = self.unanswered_s
        #: When the slot was granted, in seconds on the monotonic clock; None: it was not.
        self.granted_s: float | None = None
        #: The box, and whether it has to load the model first.
        self.box = ""
        self.loads = False
        #: Where it waits, as last reported.
        self.position: Position | None = None
        self._slot: Slot | None = None
        #: A slot of this worker that it uses as soon as the limits have admitted it.
        self.kept_slot: Slot | None = None

    @property
    def kind(self) -> Hashable:
        """Of requests that may use the same slot one after the other; None: no other one may."""
        if not self._candidates or self._conversation or self._waited_before_s is not None:
            return None
        flow = self.admission.flow
        return (flow.name, flow.is_background, *self._candidates)

    @property
    def waited_s(self) -> float:
        """Seconds until it was granted, or until now."""
        return (self.granted_s or self.admission.requests.clock.monotonic()) - self.asked_s

    def make_frame(self) -> Frame:
        """The frame that asks for it, or that announces it to another coordinator."""
        frame = self.admission.make_frame(asks_limits=self._asks_limits) | {
            "id": self.id,
            "candidates": [] if self.kept_slot else list(self._candidates),
        }
        if self._conversation:
            frame["conversation"] = list(self._conversation)
        if self._waited_before_s is not None:
            frame["waited_s"] = self._waited_before_s
        return frame

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the slot is granted, at most so many seconds; False: it still
        waits, and `position` is new.

        Raises QueueFull, QueueTimeout, RateLimited, QuotaExceeded, ShuttingDown, and CallEnded if
        the call was ended. Whatever it raises, the request is out of the queue.
        """
        try:
            if not self.is_decided:
                self._pause(seconds)
            if not self.is_decided:
                self._awaits_position = True
                self.admission.requests.send({"op": "locate", "id": self.id})
                if self._awaits_position and not self.is_decided:  # no answer has come yet
                    self._pause(LOCATE_S)
                self._awaits_position = False
            if self._failure is not None:
                raise self._failure
        except BaseException:  # also if the greenlet is killed
            self.release(None)
            raise
        return self.is_decided

    def _pause(self, seconds: float | None) -> None:
        self._woken = gevent.event.Event()
        self._call.attach(self._woken.set)
        try:
            self.admission.requests.clock.wait(self._woken, seconds)
        finally:
            self._call.detach()
        self._call.check()

    def release(self, outcome: Outcome | None = None) -> None:
        """Gives the slot back, or leaves the queue; only the first call counts."""
        requests, slot = self.admission.requests, self._slot
        if requests.tickets.pop(self.id, None) is None:
            return
        if self.kept_slot is not None:
            requests.keep(self.kept_slot)
        if slot is None:
            requests.send_later({"op": "release", "id": self.id})
            return
        slot.note(outcome)
        # Who had to wait, or loaded a model, is no sign that a slot is to spare.
        if outcome is None or self.position is not None or self.loads or slot.kind is None:
            requests.give_back(slot)
        else:
            requests.keep(slot)

    def use(self, slot: Slot) -> None:
        """Uses a slot that this worker has."""
        self.unanswered_s, self._slot, self.kept_slot = None, slot, None
        self.id, self.box = slot.id, slot.box
        self.granted_s = self.admission.requests.clock.monotonic()
        self._decide()

    def take(self, frame: Frame) -> None:
        """Takes in what the coordinator decided or reported."""
        self.unanswered_s = None
        self.admission.note(frame.get("allowance"), is_admitted=frame["op"] != "refused")
        if frame["op"] == "queued":
            self.position = Position(frame["place"], frame["waiting"], frame["wait_s"])
            if self._awaits_position and self._woken is not None:
                self._woken.set()
            self._awaits_position = False
        elif frame["op"] == "granted" and self.kept_slot is not None:
            self.admission.requests.reuse(self, self.kept_slot)
        elif frame["op"] == "granted":
            self.loads = frame["loads"]
            self.use(Slot(self.id, frame["box"], self.kind))
        else:
            self.admission.is_refused = True
            code, retry_after_s = frame["code"], frame["retry_after_s"]
            if code in _QUEUE_ERRORS:
                self.refuse(_QUEUE_ERRORS[code](retry_after_s=retry_after_s))
            else:
                self.refuse(
                    _LIMIT_ERRORS[code](frame["limit"], frame["key"], retry_after_s=retry_after_s)
                )

    def refuse(self, error: GatewayError) -> None:
        """Ends the wait with this error."""
        self._failure = error
        self._decide()

    def _decide(self) -> None:
        self.is_decided = True
        if self._woken is not None:
            self._woken.set()


class Admission:
    """An exchange that needs slots, or is subject to limits."""

    def __init__(
        self,
        requests: WorkerRequests,
        exchange_id: str,
        flow: Flow,
        tokens: int,
        about: Mapping[str, Any],
    ) -> None:
        self.requests = requests
        self.flow = flow
        #: Its id, which clients choose, is not unique.
        self.exchange = f"{exchange_id}#{next(requests.numbers)}"
        self.about = about
        self._tokens = tokens
        self._is_asked = self._is_over = False
        #: Whether the exchange has passed its limits, and the tokens that Redis counts for it
        #: until it ends, if so.
        self.is_admitted = False
        self.charged = 0
        #: Whether it found the queue full, or waited too long.
        self.is_refused = False
        #: What is left of the limits; None until that is known, and without limits.
        self.allowance: Allowance | None = None
        #: What it belongs to, if it was admitted in advance.
        self.advance: Advance | None = None
        if flow.subjects and (taken := requests.advances.take(flow.name, tokens)):
            self.advance, self.allowance = taken
            self._admit()

    def acquire(
        self,
        candidates: Sequence[tuple[str, str]],
        call: Call,
        *,
        conversation: Sequence[tuple[str, int]] = (),
        waited_s: float | None = None,
    ) -> Ticket:
        """Asks for a slot of one of these boxes, each with its name of the model. Does not wait.
        Without candidates, only the limits are checked. `waited_s`: for a further attempt, since
        when the first one waited."""
        must_pass = bool(self.flow.subjects) and not self.is_admitted
        asks_limits = must_pass and not self._is_asked
        self._is_asked |= asks_limits
        ticket = Ticket(self, call, candidates, conversation, waited_s, asks_limits=asks_limits)
        kind = ticket.kind
        slot = None if kind is None else self.requests.kept.take(kind)
        if slot is None or must_pass:
            ticket.kept_slot = slot
            self.requests.ask(ticket)
        else:
            self.requests.reuse(ticket, slot)
        return ticket

    def make_frame(self, *, asks_limits: bool) -> Frame:
        """What the frames of all its tickets have, and what only the one has
        that asks the limits."""
        must_pass = bool(self.flow.subjects) and not self.is_admitted
        frame: Frame = {
            "op": "acquire",
            "exchange": self.exchange,
            "flow": self.flow.name,
            "weight": self.flow.weight,
            "background": self.flow.is_background,
            "tokens": self._tokens,
            "is_limited": must_pass,
            "about": self.about,
        }
        if must_pass and asks_limits:
            frame["subjects"] = list(map(tuple, self.flow.subjects))
            frame["ahead"] = self.requests.advances.count_wanted(self.flow.name)
        return frame

    def note(self, allowance: Frame | None, *, is_admitted: bool) -> None:
        """Takes in what is left of the limits, also of a request that they refuse."""
        if allowance and not self.is_admitted:
            self.allowance = Allowance.from_json(allowance)
            if is_admitted:
                self._admit()

    def _admit(self) -> None:
        self.is_admitted = True
        is_share = self.requests.has_stand_in or self.requests.is_store_lost
        self.charged = 0 if is_share else max(1, self._tokens)
        if not self._is_over:
            self.requests.admissions[self.exchange] = self

    def end(self, spent: Spent | None = None) -> None:
        """Charges what was used, instead of the estimate; only the first call counts.
        None: nothing was used."""
        self.requests.admissions.pop(self.exchange, None)
        # The answer may be on its way: whoever does not wait for it must not be counted for ever.
        if self._is_over or not (self._is_asked or self.is_admitted):
            return
        self._is_over = True
        self.requests.end(self, spent)


class WorkerRequests:
    """All requests of this worker that hold slots, wait for some, or have passed their limits."""

    def __init__(
        self,
        send: Callable[[Frame], None],
        send_later: Callable[[Frame], bool],
        start: Callable[[], None],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`send` takes frames for the coordinator, `send_later` those that nobody waits for, and
        returns False if there is no coordinator; `start` sees to it that there is one."""
        self.send, self.send_later = send, send_later
        self._start = start
        self.clock = clock
        #: Whether this worker grants its share by itself, and whether the coordinator does
        #: because Redis is lost.
        self.has_stand_in = self.is_store_lost = False
        #: Those that no other frame of this worker has.
        self.numbers = itertools.count(1)
        #: By the ids of their frames: what holds a slot, or waits for one.
        self.tickets: dict[str, Ticket] = {}
        #: Exchanges that have passed their limits.
        self.admissions: dict[str, Admission] = {}
        #: Frames of exchanges whose end no coordinator has been told.
        self._ended: dict[Admission, Frame] = {}
        self.kept = KeptSlots(self.give_back, clock=clock)
        self.advances = Advances(clock=clock)
        #: Slots that are used by another request than the one that the
        #: coordinator knows, by their ids.
        self._reused: dict[str, Ticket] = {}
        self._is_reporting = False

    def ask(self, ticket: Ticket) -> None:
        """Sends a request for a slot; before the coordinator is there, it waits here."""
        ticket.id = str(next(self.numbers))
        self.tickets[ticket.id] = ticket
        self._start()
        self.send(ticket.make_frame())

    def reuse(self, ticket: Ticket, slot: Slot) -> None:
        """Gives a request a slot that an earlier one of its kind has left."""
        self.tickets.pop(ticket.id, None)
        ticket.use(slot)
        self.tickets[slot.id] = self._reused[slot.id] = ticket
        self._start_reporting()

    def keep(self, slot: Slot) -> None:
        """Keeps a slot for the next request of its kind."""
        self.kept.keep(slot)
        self._start_reporting()

    def give_back(self, slot: Slot) -> None:
        """Gives a slot back, with what the requests that used it took."""
        if not slot.box:
            return  # only the limits were asked
        frame: Frame = {"op": "release", "id": slot.id}
        if slot.outcome is not None:
            frame["outcome"] = asdict(slot.outcome) | {"earlier_gpu_s": slot.earlier_gpu_s}
        self.send_later(frame)

    def end(self, admission: Admission, spent: Spent | None) -> None:
        """Says that an exchange has ended, later if there is no coordinator now, or if it
        was admitted in advance."""
        if admission.advance is not None:
            counts = spent is not None or not admission.is_refused
            self.advances.end(admission.advance, (spent or Spent()).tokens if counts else None)
            self._start_reporting()
            return
        frame: Frame = {
            "op": "end",
            "exchange": admission.exchange,
            "spent": spent and asdict(spent),
        }
        is_told = self.send_later(frame) and not self.has_stand_in
        if admission.charged and not is_told:
            self._ended[admission] = frame

    def _start_reporting(self) -> None:
        if not self._is_reporting:
            self._is_reporting = True
            gevent.spawn(self._report)

    def _report(self) -> None:
        """Reports from time to time what nobody waits for, all at once: a frame for each request
        would cost as much as the rest of a short one."""
        while self.kept.slots or self.advances or self._reused:
            self.clock.sleep(KEPT_S)
            self.kept.give_back_old()
            if reports := self.advances.report():
                self.send({"op": "used", "advances": reports})
            reused, self._reused = self._reused, {}
            now = self.clock.monotonic()
            for slot_id, ticket in reused.items():
                if self.tickets.get(slot_id) is ticket and ticket.granted_s is not None:
                    age_s = now - ticket.granted_s
                    self.send(
                        {
                            "op": "reuse",
                            "id": slot_id,
                            "about": ticket.admission.about,
                            "age_s": age_s,
                        }
                    )
        self._is_reporting = False

    # What the coordinator does.

    def take(self, frame: Frame) -> None:
        """Takes in what the coordinator decided or reported."""
        if frame["op"] == "recall":
            self.kept.call_back(frame["boxes"])
        elif frame["op"] == "ahead":
            allowance = Allowance.from_json(frame["allowance"])
            self.advances.add(
                frame["flow"], frame["exchange"], frame["count"], frame["tokens"], allowance
            )
            self._start_reporting()
        elif ticket := self.tickets.get(frame["id"]):
            ticket.take(frame)

    def forget_granted(self) -> None:
        """Forgets what a coordinator has granted and no request uses: the next one, or its
        stand-in, knows nothing of it."""
        self.kept.slots.clear()
        self.advances = Advances(clock=self.clock)
        for admission in self.admissions.values():
            admission.advance = None

    def announce(self) -> Frame:
        """What another coordinator has to know of requests that hold slots or
        have passed their limits."""
        self.forget_granted()
        now = self.clock.monotonic()
        held = [
            each.make_frame() | {"box": each.box, "age_s": now - each.granted_s}
            for each in self.tickets.values()
            if each.granted_s is not None and each.box
        ]
        ended = {} if self.has_stand_in else self._ended
        self._ended = self._ended if self.has_stand_in else {}
        announced = [*self.admissions.values(), *ended]
        exchanges = [
            (each.exchange, list(map(tuple, each.flow.subjects)), each.charged)
            for each in announced
        ]
        return {
            "op": "announce",
            "worker": os.getpid(),
            "held": held,
            "exchanges": exchanges,
            "ended": list(ended.values()),
        }

    def ask_again(self) -> None:
        """Asks another coordinator for what waits."""
        now = self.clock.monotonic()
        for ticket in [each for each in self.tickets.values() if each.granted_s is None]:
            ticket.kept_slot = None
            frame = ticket.make_frame()
            if not ticket.unanswered_s:
                frame["waited_s"] = ticket.waited_s
            ticket.unanswered_s = now
            self.send(frame)
