"""A worker's side of the coordinator: requests ask here for slots, and wait here.

The coordinator is started by the first worker that needs it. While there is none, requests wait a
moment for the next one; after that the worker grants its own share, and announces what it holds as
soon as the coordinator is back.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import gevent
import gevent.event

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.admissions import Admission, Flow, WorkerRequests
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import Subject
from ollama_proxy.coordination.link import Link, connect
from ollama_proxy.coordination.records_client import RecordsClient
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.store import make_share
from ollama_proxy.errors import ShuttingDown
from ollama_proxy.hub import Json
from ollama_proxy.texts import Translatable, text_from_json

log = logging.getLogger(__name__)

#: Seconds in which the coordinator has to answer, and those that a status page
#: waits for its document.
REPLY_S, STATUS_S = 2.0, 1.0

#: Seconds for which requests wait for a coordinator before the worker grants its own share: if
#: nothing is to be expected, and while one starts, which takes longer on a busy machine.
PATIENCE_S, START_PATIENCE_S = 2.0, 10.0

#: Seconds between two attempts to reach the coordinator, and to start one.
RETRY_S, START_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class BoxSettings:
    """What the configuration says of a box; `slots` None: no bound."""

    slots: int | None
    is_draining: bool = False


class CoordinatorClient:
    """Slots, queue and limits for the requests of this worker. Nothing runs until the
    first of them needs it."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int,
        start: Callable[[], Popen[bytes] | None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`directory`: of the coordinator's socket; `workers`: among how many slots and limits are
        shared while there is no coordinator; `start` starts one, and does not wait for it."""
        self._directory = directory
        self._workers = workers
        self._start = start
        self._clock = clock
        #: What `start` returned last: a process must not be forgotten while it runs. And how often,
        #: and when last, it was called since a coordinator served.
        self._started: Popen[bytes] | None = None
        self._starts, self._started_s = 0, -START_S
        #: Where frames go; None: there is no coordinator. With others, a moment later: those
        #: that nobody waits for.
        self._send: Callable[[Frame], None] | None = None
        self._send_later: Callable[[Frame], None] | None = None
        self._is_attached = gevent.event.Event()
        self._keeper: gevent.Greenlet[[], None] | None = None
        self._requests = WorkerRequests(
            self.send, self.send_later, self._start_keeping, clock=clock
        )
        self._settings: Frame = {
            "op": "settings",
            "queue": asdict(QueueLimits()),
            "boxes": {},
            "timezone": "UTC",
        }
        #: The last report of each box.
        self._reports: dict[str, Frame] = {}
        #: By the ids of their frames: questions that the coordinator has not answered yet.
        self._questions: dict[int, gevent.event.AsyncResult[Frame]] = {}
        self.records = RecordsClient(self._ask, clock=clock)
        self._is_started = False
        #: What requests get meanwhile: "" (nothing was needed yet), `coordinator`,
        #: `none` or `own share`.
        self.state = ""

    def start(self) -> None:
        """Connects this worker if anything is recorded; from then on, it stays connected."""
        self._is_started = True
        if self.records.is_enabled:
            self._start_keeping()

    def configure(
        self,
        queue: QueueLimits,
        boxes: Mapping[str, BoxSettings],
        timezone: str,
        records: Frame | None = None,
    ) -> None:
        """Applies settings, also to requests that wait. `records`: that section
        of the configuration."""
        listed = {name: asdict(box) for name, box in boxes.items()}
        self._settings = {
            "op": "settings",
            "queue": asdict(queue),
            "boxes": listed,
            "timezone": timezone,
        }
        for name in self._reports.keys() - listed.keys():
            del self._reports[name]
        self.send(self._settings)
        self.records.settings = records or {}
        self.send({"op": "records_settings", "records": self.records.settings})
        if self._is_started and self.records.is_enabled:
            self._start_keeping()

    def report_box(self, name: str, *, is_up: bool, loaded: Sequence[str] | None) -> None:
        """Reports whether a box can be reached, and its loaded models; None: not known."""
        frame: Frame = {
            "op": "box",
            "name": name,
            "is_up": is_up,
            "loaded": None if loaded is None else list(loaded),
        }
        if name in self._settings["boxes"] and self._reports.get(name) != frame:
            self._reports[name] = frame
            self.send(frame)

    def begin(
        self, exchange_id: str, flow: Flow, *, tokens: int, about: Mapping[str, Any]
    ) -> Admission:
        """An exchange that may take slots, and is subject to the limits of its flow. `tokens`:
        about those of its prompt; `about`: for the status page."""
        return Admission(self._requests, exchange_id, flow, tokens, about)

    def refuse_waiting(self) -> None:
        """The worker ends: what waits will not be served by it."""
        for ticket in [each for each in self._requests.tickets.values() if each.granted_s is None]:
            ticket.refuse(ShuttingDown())

    def close(self) -> None:
        """Gives the coordinator up; whatever is held is released there."""
        if self._keeper is not None:
            self._keeper.kill()

    def status(self) -> Frame:
        """Boxes, running and waiting requests of all workers; empty if that is not known now."""
        answer = self._ask({"op": "status"}, STATUS_S)
        if not answer:
            return {}
        found: Frame = answer["status"]
        return found | {
            "waiting": [row | {"reason": text_from_json(row["reason"])} for row in found["waiting"]]
        }

    def read_limits(self, subjects: Sequence[Subject]) -> dict[str, dict[str, Frame]]:
        """What is left of the limits of subjects, by key and name: `{remaining, resets_in_s}`;
        empty if that is not known now."""
        answer = self._ask({"op": "limits", "subjects": list(map(tuple, subjects))}, STATUS_S)
        return answer["left"] if answer else {}

    def query(self, call: str, **arguments: Json) -> Json:
        """See RecordsClient.query."""
        return self.records.query(call, **arguments)

    def _ask(self, frame: Frame, seconds: float) -> Frame | None:
        """The answer to a question; empty if the coordinator is lost meanwhile, None if
        there is none in time."""
        self._start_keeping()
        if not self._clock.wait(self._is_attached, seconds):
            return None
        number = next(self._requests.numbers)
        result: gevent.event.AsyncResult[Frame] = gevent.event.AsyncResult()
        self._questions[number] = result
        self.send({"id": number, **frame})
        try:
            self._clock.wait(result, seconds)
            answer: Frame | None = result.value
            return answer
        finally:
            self._questions.pop(number, None)

    def problems(self) -> list[dict[str, str]]:
        """What an operator should mend, each with how."""
        found: list[dict[str, str]] = []
        if self.state == "own share":
            what = Translatable(
                "the coordinator can't be reached, so each worker grants 1/%(workers)s of "
                "all slots and limits",
                workers=self._workers,
            )
            mend = Translatable(
                "see events.log, and whether %(directory)s can be written",
                directory=str(self._directory),
            )
            found.append({"what": what, "mend": mend})
        if self._requests.is_store_lost:
            what = Translatable(
                "Redis can't be reached, so each machine grants its share of all slots and limits"
            )
            found.append({"what": what, "mend": Translatable("start Redis, or correct state.url")})
        return found + self.records.problems

    def send(self, frame: Frame) -> None:
        """Sends a frame, if there is a coordinator; a new one is told everything anyway."""
        if self._send is not None:
            self._send(frame)

    def send_later(self, frame: Frame) -> bool:
        """Does the same for a frame that nobody waits for; returns False if
        there is no coordinator."""
        if self._send_later is None:
            return False
        self._send_later(frame)
        return True

    def _take(self, frame: Frame) -> None:
        if frame["op"] in ("status", "limits", "records"):
            if result := self._questions.pop(frame["id"], None):
                result.set(frame)
        elif frame["op"] in ("managed", "records_state"):
            self.records.take(frame)
        elif frame["op"] == "store":
            self._requests.is_store_lost = not frame["is_shared"]
            if frame["is_shared"]:
                log.warning("shared_state_back")
            else:
                log.error(
                    "shared_state_unavailable",
                    extra={"fields": {"effect": "this machine grants its own share"}},
                )
        else:
            self._requests.take(frame)

    # The coordinator.

    def _start_keeping(self) -> None:
        if self._keeper is None:
            self._keeper = gevent.spawn(self._keep)

    def _keep(self) -> None:
        """Keeps a coordinator at hand, for as long as the worker lives."""
        lost_s = self._clock.monotonic()
        stand_in: Coordinator | None = None
        while True:
            link = connect(self._directory)
            if link is not None:
                self._enter("coordinator")
                stand_in, self._starts = None, 0
                self._use(link)
                self._send = self._send_later = None
                self._is_attached.clear()
                while self._questions:
                    self._questions.popitem()[1].set({})
                self._requests.forget_granted()
                lost_s = self._clock.monotonic()
                self._enter("none")
                continue
            patience_s = START_PATIENCE_S if self._keep_starting() else PATIENCE_S
            if stand_in is None and self._clock.monotonic() - lost_s > patience_s:
                stand_in = Coordinator(
                    make_share(1 / self._workers, self._clock), clock=self._clock
                )
                self._enter("own share")
                session = stand_in.open(self._take)
                session.handlers["records"] = lambda frame: self._take(
                    {"op": "records", "id": frame["id"]}
                )
                self._attach(session.handle, session.handle)
            if stand_in is not None:
                stand_in.tick()
            self._clock.sleep(RETRY_S if stand_in is None else START_S / 2)

    def _keep_starting(self) -> bool:
        """Starts a coordinator, unless the last one that was started still runs: another one
        would make it slower. Returns whether it will serve soon; if the first one has ended,
        there is one that hangs."""
        is_running = self._starts > 0 and self._started is not None and self._started.poll() is None
        if not is_running and self._clock.monotonic() - self._started_s > START_S:
            self._starts, self._started_s = self._starts + 1, self._clock.monotonic()
            self._started = self._start()
            is_running = self._started is not None
        # One that ends well leaves the place to another one; at first that is
        # likely to be starting, too.
        has_left = not self.state and self._started is not None and self._started.poll() == 0
        return has_left or (is_running and self._starts == 1)

    def _enter(self, state: str) -> None:
        if state == self.state:
            return
        before, self.state = self.state, state
        self._requests.has_stand_in = state == "own share"
        if state == "own share":
            log.error(
                "coordinator_unavailable",
                extra={"fields": {"effect": f"1/{self._workers} of slots and limits"}},
            )
        elif state == "coordinator" and before:
            log.warning("coordinator_back")

    def _use(self, link: Link) -> None:
        """Sends and receives frames until the link ends, or the coordinator hangs."""
        reader = gevent.spawn(link.receive, self._take)
        try:
            self._attach(link.send, link.send_later)
            while not reader.ready():
                self._clock.join([reader], REPLY_S)
                overdue_s = self._clock.monotonic() - REPLY_S
                asked_s = [
                    each.unanswered_s
                    for each in self._requests.tickets.values()
                    if each.unanswered_s
                ]
                if min(asked_s, default=math.inf) < overdue_s:
                    link.send_last({"op": "detach", "worker": os.getpid()})
        finally:
            link.close()

    def _attach(self, send: Callable[[Frame], None], send_later: Callable[[Frame], None]) -> None:
        """Tells a new coordinator everything: settings, boxes, what is held, and what waits."""
        announcement = self._requests.announce()
        send(self._settings)
        for report in self._reports.values():
            send(report)
        send({"op": "records_settings", "records": self.records.settings})
        send(announcement)
        self._send, self._send_later = send, send_later
        self._is_attached.set()
        self._requests.ask_again()
