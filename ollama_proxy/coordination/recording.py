"""The records of usage as a part of the coordinator: it answers the calls of workers, tells them
what has changed, and knows what quotas have used. The database is the matter of an object that is
handed in, see `Records`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, repeat
from typing import Protocol

import gevent
import gevent.event

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import Spent
from ollama_proxy.settings import Records as RecordsSettings

Send = Callable[[Frame], None]

#: Seconds that a new coordinator waits at most for what quotas have used, before it serves; workers
#: wait longer for one that starts.
SEED_S = 8.0

#: Seconds between two looks whether it is time to serve.
TICK_S = 0.05

#: Seconds in which the limits learn of each exchange that the records have.
LAG_S = 1.0

#: Seconds between two comparisons of quotas with the records: after a worker has come, which may
#: have ended requests while there was no coordinator; the last one again and again, because Redis
#: may lose what it has.
COMPARE_S = (2.0, 5.0, 15.0, 60.0)


def make_records_frame(section: RecordsSettings) -> Frame:
    """The section `records` of the configuration, with the password of the database."""
    return asdict(section) | {"url": section.url.secret if section.url else None}


class Records(Protocol):
    """The records, for the event loop of the coordinator: only `read_used` and `close` wait."""

    @property
    def is_available(self) -> bool:
        """Whether the database can be used, as far as is known."""

    def start(self, push: Send) -> None:
        """Begins to import, and to pass on frames for all workers."""

    def configure(self, settings: Frame) -> None:
        """Applies the section `records` of the configuration, as a worker knows it."""

    def list_news(self) -> Sequence[Frame]:
        """The frames for a worker that has just come."""

    def ask(self, call: str, arguments: Frame, reply: Send) -> None:
        """Calls `reply` later, with `result` or `error`."""

    def read_used(self, starts_s: Sequence[float]) -> Sequence[Mapping[str, Spent]]:
        """What each subject has used since each of these times, which are beginnings of
        an hour, with everything that was written down until now. Waits for a database
        that can't be reached."""

    def close(self) -> None:
        """Imports what is left, for a few seconds at most."""


@dataclass(slots=True, eq=False)
class Recording:
    """Connects records to the workers and to the limits of a coordinator."""

    records: Records
    _coordinator: Coordinator
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    #: Where frames for each worker go.
    _workers: list[Send] = field(default_factory=list)
    #: The quotas have to be compared with the records soon; they have been, once at least.
    _is_outdated: gevent.event.Event = field(default_factory=gevent.event.Event)
    _is_seeded: gevent.event.Event = field(default_factory=gevent.event.Event)

    def start(self) -> None:
        """Begins, and waits for the quotas, so that a restart gives nothing back that was used
        before; not if Redis has them, or if the database is not there."""
        self.records.start(self._push)
        gevent.spawn(self._keep_quotas)
        ends_s = self.clock.monotonic() + SEED_S
        while (
            not self._coordinator.store.is_shared
            and self.records.is_available
            and self.clock.monotonic() < ends_s
        ):
            if self.clock.wait(self._is_seeded, TICK_S):
                break

    # What a worker asks for, by the frame; `send` takes the frames for it.

    def configure(self, send: Send, frame: Frame) -> None:
        """The settings of the records. The first frame of this kind makes it one of the workers."""
        self.records.configure(frame["records"])
        self._coordinator.has_records = bool(frame["records"].get("url"))
        self._is_outdated.set()
        if send not in self._workers:
            self._workers.append(send)
            for news in self.records.list_news():
                send(news)

    def ask(self, send: Send, frame: Frame) -> None:
        """Answers with the number of the question."""
        reply = {"op": "records", "id": frame["id"]}
        self.records.ask(frame["call"], frame["arguments"], lambda answer: send(reply | answer))

    def forget(self, send: Send) -> None:
        """The worker has gone."""
        if send in self._workers:
            self._workers.remove(send)

    def _push(self, frame: Frame) -> None:
        for send in self._workers:
            send(frame)

    def _keep_quotas(self) -> None:
        """Raises the quotas to what the records have. Redis already has what was used before,
        except for what a worker that comes is about to announce."""
        if self._coordinator.store.is_shared:
            self._is_outdated.wait()
        while True:
            self._is_outdated.clear()
            for pause_s in chain(COMPARE_S, repeat(COMPARE_S[-1])):
                periods = self._coordinator.store.limiter.list_periods()
                used = self.records.read_used([period.start_s for period in periods])
                if self._workers:
                    self.clock.sleep(LAG_S)
                self._coordinator.store.limiter.seed(dict(zip(periods, used, strict=True)))
                self._is_seeded.set()
                if self.clock.wait(self._is_outdated, pause_s):
                    self.clock.sleep(LAG_S)
                    break
