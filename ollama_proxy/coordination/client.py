"""A worker's side of the coordinator: requests ask here for slots, and wait here.

The coordinator is started by the first worker that needs it. While there is none, requests wait a moment for the next
one; after that the worker grants its own share, and announces what it holds as soon as the coordinator is back.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event

from ollama_proxy.coordination.advances import Advances
from ollama_proxy.coordination.coordinator import Coordinator, make_share
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.kept_slots import KeptSlots, Slot
from ollama_proxy.coordination.limits import QUOTA, RATE_LIMIT, Allowance, Spent, Subject
from ollama_proxy.coordination.link import Link, connect
from ollama_proxy.coordination.scheduler import Position, QueueLimits
from ollama_proxy.coordination.state import Outcome
from ollama_proxy.errors import GatewayError, QueueFull, QueueTimeout, QuotaExceeded, RateLimited, ShuttingDown

if TYPE_CHECKING:  # the coordinator's process needs none of it
    from ollama_proxy.upstreams import Call

log = logging.getLogger(__name__)

#: Seconds in which the coordinator has to answer; those that a heartbeat waits for a new position, and a status page
#: for its document.
REPLY_S, LOCATE_S, STATUS_S = 2.0, 0.5, 1.0

#: Seconds for which requests wait for a coordinator before the worker grants its own share: if nothing is to be
#: expected, and while one starts, which takes longer on a busy machine.
PATIENCE_S, START_PATIENCE_S = 2.0, 10.0

#: Seconds between two attempts to reach the coordinator, and to start one.
RETRY_S, START_S = 0.05, 1.0

_QUEUE_ERRORS: dict[str, type[GatewayError]] = {"queue_full": QueueFull, "queue_timeout": QueueTimeout}
_LIMIT_ERRORS: dict[str, type[RateLimited]] = {RATE_LIMIT: RateLimited, QUOTA: QuotaExceeded}


@dataclass(frozen=True, slots=True)
class Flow:
    """Who asks for slots: a token, or a user behind one."""

    name: str
    weight: float = 1.0
    is_background: bool = False
    #: Whose limits apply: those of the token, then those of the user.
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True, slots=True)
class BoxSettings:
    """What the configuration says of a box; `slots` None: no bound."""

    slots: int | None
    is_draining: bool = False


class Ticket:
    """One attempt's request for a slot."""

    def __init__(self, admission: Admission, frame: Frame, call: Call, kind: Hashable) -> None:
        """`kind`: of requests that may use the same slot one after the other; None: no other one may."""
        self.frame = frame
        self.kind = kind
        self.admission = admission
        self._call = call
        self._decided, self._located = gevent.event.Event(), gevent.event.Event()
        self._failure: GatewayError | None = None
        #: Since when the coordinator owes the first answer, in seconds on the monotonic clock; None: it has answered.
        self.unanswered_s: float | None = time.monotonic()
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
    def waited_s(self) -> float:
        """Seconds until it was granted, or until now."""
        return (self.granted_s or time.monotonic()) - self.asked_s

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the slot is granted, at most so many seconds; False: it still waits, and `position` is new.

        Raises QueueFull, QueueTimeout, RateLimited, QuotaExceeded, ShuttingDown, and CallEnded if the call was ended.
        Whatever it raises, the request is out of the queue.
        """
        try:
            if not self._decided.is_set():
                self._wait_for(self._decided, seconds)
            if not self._decided.is_set():
                self._located.clear()
                self.admission.client.send({"op": "locate", "id": self.frame["id"]})
                self._wait_for(self._located, LOCATE_S)
            if self._failure is not None:
                raise self._failure
        except BaseException:  # also if the greenlet is killed
            self.release(None)
            raise
        return self._decided.is_set()

    def _wait_for(self, event: gevent.event.Event, seconds: float | None) -> None:
        self._call.attach(event.set)
        try:
            event.wait(seconds)
        finally:
            self._call.detach()
        self._call.check()

    def release(self, outcome: Outcome | None = None) -> None:
        """Gives the slot back, or leaves the queue; only the first call counts."""
        client, slot = self.admission.client, self._slot
        if not client.forget(self):
            return
        if self.kept_slot is not None:
            client.kept.keep(self.kept_slot)
        if slot is None:
            client.leave(self)
            return
        slot.note(outcome)
        # Who had to wait, or loaded a model, is no sign that a slot is to spare.
        if outcome is None or self.position is not None or self.loads or slot.kind is None:
            client.give_back(slot)
        else:
            client.kept.keep(slot)

    def use(self, slot: Slot) -> None:
        """Uses a slot that this worker has."""
        self.unanswered_s, self._slot, self.kept_slot = None, slot, None
        self.box, self.granted_s = slot.box, time.monotonic()
        self._decide()

    def take(self, frame: Frame) -> None:
        """Takes in what the coordinator decided or reported."""
        self.unanswered_s = None
        self.admission.note(frame.get("allowance"), is_admitted=frame["op"] != "refused")
        if frame["op"] == "queued":
            self.position = Position(frame["place"], frame["waiting"], frame["wait_s"])
            self._located.set()
        elif frame["op"] == "granted" and self.kept_slot is not None:
            self.admission.client.reuse(self, self.kept_slot)
        elif frame["op"] == "granted":
            self.loads = frame["loads"]
            self.use(Slot(self.frame["id"], frame["box"], self.kind))
        else:
            self.refuse(make_refusal(frame))

    def refuse(self, error: GatewayError) -> None:
        """Ends the wait with this error."""
        self._failure = error
        self._decide()

    def _decide(self) -> None:
        self._decided.set()
        self._located.set()


class Admission:
    """An exchange that needs slots, or is subject to limits."""

    def __init__(
        self, client: CoordinatorClient, exchange_id: str, flow: Flow, tokens: int, about: Mapping[str, Any]
    ) -> None:
        self.client = client
        self.flow = flow
        self._tokens = tokens
        self._about = dict(about)
        self._is_asked = self._is_over = False
        #: Whether the exchange has passed its limits.
        self.is_admitted = False
        #: What is left of the limits; None until that is known, and without limits.
        self.allowance: Allowance | None = None
        if flow.subjects and (advance := client.advances.take(flow.name, tokens)):
            self.exchange, self.allowance = advance
            self._admit()
        else:
            #: Its id, which clients choose, is not unique.
            self.exchange = f"{exchange_id}#{client.next_number()}"

    def acquire(
        self,
        candidates: Sequence[tuple[str, str]],
        call: Call,
        *,
        conversation: Sequence[tuple[str, int]] = (),
        waited_s: float | None = None,
    ) -> Ticket:
        """Asks for a slot of one of these boxes, each with its name of the model. Does not wait. Without candidates,
        only the limits are checked. `waited_s`: for a further attempt, since when the first one waited."""
        frame: Frame = {
            "op": "acquire",
            "id": str(self.client.next_number()),
            "exchange": self.exchange,
            "flow": self.flow.name,
            "weight": self.flow.weight,
            "background": self.flow.is_background,
            "candidates": list(candidates),
            "tokens": self._tokens,
            "is_limited": bool(self.flow.subjects),
            "about": self._about,
        }
        if conversation:
            frame["conversation"] = list(conversation)
        if waited_s is not None:
            frame["waited_s"] = waited_s
        if self.flow.subjects and not self._is_asked:
            self._is_asked = True
            frame |= self._ask_limits()
        is_plain = candidates and not conversation and waited_s is None
        kind = (self.flow.name, self.flow.is_background, *candidates) if is_plain else None
        ticket = Ticket(self, frame, call, kind)
        slot = None if kind is None else self.client.kept.take(kind)
        if slot is None or (self.flow.subjects and not self.is_admitted):
            ticket.kept_slot = slot
            self.client.ask(ticket)
        else:
            self.client.reuse(ticket, slot)
        return ticket

    def _ask_limits(self) -> Frame:
        """What only the first frame of an exchange has."""
        if self.is_admitted:
            return {"is_ahead": True}
        return {"subjects": self.list_subjects(), "ahead": self.client.advances.count_wanted(self.flow.name)}

    def list_subjects(self) -> list[tuple[str, Mapping[str, float]]]:
        """The limits as frames have them."""
        return [(each.key, each.limits) for each in self.flow.subjects]

    def note(self, allowance: Frame | None, *, is_admitted: bool) -> None:
        """Takes in what is left of the limits, also of a request that they refuse."""
        if allowance and not self.is_admitted:
            self.allowance = Allowance.from_json(allowance)
            if is_admitted:
                self._admit()

    def _admit(self) -> None:
        self.is_admitted = True
        if not self._is_over:
            self.client.admissions[self.exchange] = self

    def end(self, spent: Spent | None = None) -> None:
        """Charges what was used, instead of the estimate; only the first call counts. None: nothing was used."""
        self.client.admissions.pop(self.exchange, None)
        # The answer may be on its way: whoever does not wait for it must not be counted for ever.
        if (self._is_asked or self.is_admitted) and not self._is_over:
            self._is_over = True
            frame: Frame = {"op": "end", "exchange": self.exchange, "spent": None}
            if spent is not None:
                frame["spent"] = {"tokens": spent.tokens, "gpu_s": spent.gpu_s, "cost": spent.cost}
            self.client.send_later(frame)


class CoordinatorClient:
    """Slots, queue and limits for the requests of this worker. Nothing runs until the first of them needs it."""

    def __init__(self, directory: Path, *, workers: int, start: Callable[[], Popen[bytes] | None]) -> None:
        """`directory`: of the coordinator's socket; `workers`: among how many slots and limits are shared while there
        is no coordinator; `start` starts one, and does not wait for it."""
        self._directory = directory
        self._workers = workers
        self._start = start
        #: What `start` returned last: a process must not be forgotten while it runs. And how often, and when last, it
        #: was called since a coordinator served.
        self._started: Popen[bytes] | None = None
        self._starts, self._started_s = 0, -START_S
        #: Where frames go; None: there is no coordinator. With others, a moment later: those that nobody waits for.
        self._send: Callable[[Frame], None] | None = None
        self._send_later: Callable[[Frame], None] | None = None
        self._is_attached = gevent.event.Event()
        self._keeper: gevent.Greenlet[[], None] | None = None
        self._numbers = itertools.count(1)
        #: By the ids of their frames: what holds a slot, or waits for one.
        self._tickets: dict[str, Ticket] = {}
        #: Exchanges that have passed their limits.
        self.admissions: dict[str, Admission] = {}
        self._settings: Frame = {"op": "settings", "queue": asdict(QueueLimits()), "boxes": {}, "timezone": "UTC"}
        #: The last report of each box.
        self._reports: dict[str, Frame] = {}
        #: Whether the Redis that several machines share can't be reached.
        self._is_store_lost = False
        self.kept = KeptSlots(self.give_back)
        self.advances = Advances(lambda unused: self.send_later({"op": "unused", "exchanges": unused}))
        self._statuses: dict[int, gevent.event.AsyncResult[Frame]] = {}
        #: What requests get meanwhile: "" (nothing was needed yet), `coordinator`, `none` or `own share`.
        self.state = ""

    def configure(self, queue: QueueLimits, boxes: Mapping[str, BoxSettings], timezone: str) -> None:
        """Applies settings, also to requests that wait."""
        listed = {name: asdict(box) for name, box in boxes.items()}
        self._settings = {"op": "settings", "queue": asdict(queue), "boxes": listed, "timezone": timezone}
        for name in self._reports.keys() - listed.keys():
            del self._reports[name]
        self.send(self._settings)

    def report_box(self, name: str, *, is_up: bool, loaded: Sequence[str] | None) -> None:
        """Reports whether a box can be reached, and its loaded models; None: not known."""
        frame: Frame = {"op": "box", "name": name, "is_up": is_up, "loaded": None if loaded is None else list(loaded)}
        if name in self._settings["boxes"] and self._reports.get(name) != frame:
            self._reports[name] = frame
            self.send(frame)

    def begin(self, exchange_id: str, flow: Flow, *, tokens: int, about: Mapping[str, Any]) -> Admission:
        """An exchange that may take slots, and is subject to the limits of its flow. `tokens`: about those of its
        prompt; `about`: for the status page."""
        return Admission(self, exchange_id, flow, tokens, about)

    def refuse_waiting(self) -> None:
        """The worker ends: what waits will not be served by it."""
        for ticket in [each for each in self._tickets.values() if each.granted_s is None]:
            ticket.refuse(ShuttingDown())

    @property
    def held(self) -> int:
        """How many requests hold a slot or wait for one."""
        return len(self._tickets)

    def close(self) -> None:
        """Gives the coordinator up; whatever is held is released there."""
        if self._keeper is not None:
            self._keeper.kill()

    def status(self) -> Frame:
        """Boxes, running and waiting requests of all workers; empty if that is not known now."""
        self._start_keeping()
        self._is_attached.wait(STATUS_S)
        number = self.next_number()
        result = self._statuses[number] = gevent.event.AsyncResult()
        self.send({"op": "status", "id": number})
        try:
            return (result.get(timeout=STATUS_S) or {}) if self._send else {}
        except gevent.Timeout:
            return {}
        finally:
            del self._statuses[number]

    def problems(self) -> list[dict[str, str]]:
        """What an operator should mend, each with how."""
        found = []
        if self.state == "own share":
            what = f"the coordinator can't be reached, so each worker grants 1/{self._workers} of all slots and limits"
            found.append({"what": what, "mend": f"see events.log, and whether {self._directory} can be written"})
        if self._is_store_lost:
            what = "Redis can't be reached, so each machine grants its share of all slots and limits"
            found.append({"what": what, "mend": "start Redis, or correct state.url"})
        return found

    # For tickets and admissions.

    def next_number(self) -> int:
        """A number that no other frame of this worker has."""
        return next(self._numbers)

    def ask(self, ticket: Ticket) -> None:
        """Sends a request for a slot; before the coordinator is there, it waits here."""
        self._tickets[ticket.frame["id"]] = ticket
        self._start_keeping()
        self.send(ticket.frame if ticket.kept_slot is None else ticket.frame | {"candidates": []})

    def reuse(self, ticket: Ticket, slot: Slot) -> None:
        """Gives a request a slot that an earlier one of its kind has left."""
        self.forget(ticket)
        ticket.frame["id"] = slot.id
        self._tickets[slot.id] = ticket
        ticket.use(slot)
        self.send_later({"op": "reuse", "id": slot.id, "about": ticket.frame["about"]})

    def leave(self, ticket: Ticket) -> None:
        """Takes a request out of the queue."""
        self.send_later({"op": "release", "id": ticket.frame["id"]})

    def give_back(self, slot: Slot) -> None:
        """Gives a slot back, with what the requests that used it took."""
        frame: Frame = {"op": "release", "id": slot.id}
        if slot.outcome is not None:
            names = ("gpu_s", "load_s", "prompt_s", "earlier_gpu_s")
            frame["outcome"] = {name: getattr(slot.outcome, name) for name in names}
        self.send_later(frame)

    def send(self, frame: Frame) -> None:
        """Sends a frame, if there is a coordinator; a new one is told everything anyway."""
        if self._send is not None:
            self._send(frame)

    def send_later(self, frame: Frame) -> None:
        """Does the same for a frame that nobody waits for."""
        if self._send_later is not None:
            self._send_later(frame)

    def forget(self, ticket: Ticket) -> bool:
        """Forgets a ticket that is over; returns False if that was done before."""
        return self._tickets.pop(ticket.frame["id"], None) is not None

    def _take(self, frame: Frame) -> None:
        if frame["op"] == "status":
            if result := self._statuses.get(frame["id"]):
                result.set(frame["status"])
        elif frame["op"] == "recall":
            self.kept.call_back(frame["boxes"])
        elif frame["op"] == "ahead":
            self.advances.add(
                frame["flow"], frame["exchanges"], frame["tokens"], Allowance.from_json(frame["allowance"])
            )
        elif frame["op"] == "store":
            self._is_store_lost = not frame["is_shared"]
            if frame["is_shared"]:
                log.warning("shared_state_back")
            else:
                log.error("shared_state_unavailable", extra={"fields": {"effect": "this machine grants its own share"}})
        elif ticket := self._tickets.get(frame["id"]):
            ticket.take(frame)

    # The coordinator.

    def _start_keeping(self) -> None:
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)

    def _keep(self) -> None:
        """Keeps a coordinator at hand, for as long as the worker lives."""
        lost_s = time.monotonic()
        stand_in: Coordinator | None = None
        while True:
            link = connect(self._directory)
            if link is not None:
                self._enter("coordinator")
                stand_in, self._starts = None, 0
                self._use(link)
                self._send = self._send_later = None
                self._is_attached.clear()
                self.kept.clear()
                self.advances.clear()
                lost_s = time.monotonic()
                self._enter("none")
                continue
            patience_s = START_PATIENCE_S if self._keep_starting() else PATIENCE_S
            if stand_in is None and time.monotonic() - lost_s > patience_s:
                stand_in = Coordinator(make_share(1 / self._workers))
                self._enter("own share")
                handle = stand_in.open(self._take).handle
                self._attach(handle, handle)
            if stand_in is not None:
                stand_in.tick()
            gevent.sleep(RETRY_S if stand_in is None else START_S / 2)

    def _keep_starting(self) -> bool:
        """Starts a coordinator, unless the last one that was started still runs: another one would make it slower.
        Returns whether it will serve soon; if the first one has ended, there is one that hangs."""
        is_running = self._starts > 0 and self._started is not None and self._started.poll() is None
        if not is_running and time.monotonic() - self._started_s > START_S:
            self._starts, self._started_s = self._starts + 1, time.monotonic()
            self._started = self._start()
            is_running = self._started is not None
        return is_running and self._starts == 1

    def _enter(self, state: str) -> None:
        if state == self.state:
            return
        before, self.state = self.state, state
        if state == "own share":
            log.error("coordinator_unavailable", extra={"fields": {"effect": f"1/{self._workers} of slots and limits"}})
        elif state == "coordinator" and before:
            log.warning("coordinator_back")

    def _use(self, link: Link) -> None:
        """Sends and receives frames until the link ends, or the coordinator hangs."""
        reader = gevent.spawn(link.receive, self._take)
        try:
            self._attach(link.send, link.send_later)
            while not reader.ready():
                reader.join(timeout=REPLY_S)
                overdue_s = time.monotonic() - REPLY_S
                if any(each.unanswered_s and each.unanswered_s < overdue_s for each in self._tickets.values()):
                    link.close()
        finally:
            link.close()

    def _attach(self, send: Callable[[Frame], None], send_later: Callable[[Frame], None]) -> None:
        """Tells a new coordinator everything: settings, boxes, what is held, and what waits."""
        # It knows nothing of what its stand-in has granted and no request uses.
        self.kept.clear()
        self.advances.clear()
        now = time.monotonic()
        tickets = list(self._tickets.values())
        held = [
            each.frame | {"box": each.box, "age_s": now - each.granted_s}
            for each in tickets
            if each.granted_s is not None and each.box
        ]
        exchanges = [(each.exchange, each.list_subjects()) for each in self.admissions.values()]
        send(self._settings)
        for report in self._reports.values():
            send(report)
        send({"op": "announce", "held": held, "exchanges": exchanges})
        self._send, self._send_later = send, send_later
        self._is_attached.set()
        for ticket in tickets:
            if ticket.granted_s is None:
                frame, ticket.kept_slot = ticket.frame, None  # what another coordinator had granted
                if ticket.admission.is_admitted:
                    frame = {name: value for name, value in frame.items() if name != "subjects"}
                if not ticket.unanswered_s:
                    frame = frame | {"waited_s": ticket.waited_s}
                ticket.unanswered_s = now
                send(frame)


def make_refusal(frame: Frame) -> GatewayError:
    """The error for a refused request."""
    code, retry_after_s = frame["code"], frame["retry_after_s"]
    if code in _LIMIT_ERRORS:
        return _LIMIT_ERRORS[code](frame["limit"], frame["key"], retry_after_s=retry_after_s)
    return _QUEUE_ERRORS[code](retry_after_s=retry_after_s)
