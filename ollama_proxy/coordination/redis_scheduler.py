"""The scheduler of several machines: its state is in Redis, and each of them
decides with the same rules.

A request has the id `<machine>/<start>/<id>` there, with a new `start` each time that the machine
starts. Decisions about a machine's own requests are returned; those about others are published,
and each machine compares once a second what it holds with what Redis has, so a lost message costs
a second and no request. What a machine without a lease held or waited for is released by
whichever machine notices.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import orjson
import redis

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.redis_store import RedisStore
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.shared_state import VERSION, BoxView, SharedState
from ollama_proxy.coordination.state import (
    Decision,
    Grant,
    Outcome,
    Position,
    Refusal,
    Request,
    StateUnavailable,
)

#: Hashes of a conversation that are compared; the last turn of a client is among the last few.
MAX_TURNS = 8

#: Seconds between two attempts to reach Redis again.
RETRY_S = 0.25

#: Seconds after the start of a machine, or after Redis is back, in which others may
#: still say what they hold.
SETTLE_S = 3.0

#: Ticks in which every machine notices that Redis has lost everything, and
#: says again what it holds.
SETTLE_TICKS = 3

Operation = Callable[[SharedState, float], list[Decision]]


@dataclass(slots=True, eq=False)
class _Entry:
    """A request of this machine that waits or holds a slot, since a monotonic time."""

    request: Request
    since_s: float
    grant: Grant | None = None
    #: Whether Redis has been told of it.
    is_known: bool = False


class RedisScheduler:
    """See Scheduler, which has the same methods. All times given and returned are
    those of `time.monotonic`.

    Methods raise StateUnavailable as long as Redis can't be used. Then `is_available` is False and
    `problem` says why. When Redis is back, `announce` is asked for all requests that hold a slot or
    wait: the request, the box (None: it waits) and since when; then `on_return` is called.
    `on_decisions` gets the decisions that were not returned. These callbacks may be called by other
    greenlets; `announce` and `on_return` must not wait.
    """

    def __init__(
        self,
        client: redis.Redis,
        machine: str,
        limits: QueueLimits,
        on_decisions: Callable[[list[Decision]], None],
        prefix: str = "ollama-proxy:",
        *,
        lease_s: float = 15.0,
        tick_s: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`clock`: of all times but those of Redis; its threads wait by the system's."""
        if not machine or "/" in machine:
            raise ValueError(f"{machine!r} can't be the name of a machine")
        self._clock = clock
        self.limits = limits
        self.on_decisions = on_decisions
        self.announce: Callable[[], Iterable[tuple[Request, str | None, float]]] | None = None
        self.on_return: Callable[[], None] = lambda: None
        self.is_available, self.problem = False, "Redis was not asked yet."
        #: Machines that are alive, this one included.
        self.machines = 1
        self.store = RedisStore(client, prefix, VERSION)
        self._machine, self._lease_s, self._tick_s = machine, lease_s, tick_s
        self._names = f"{machine}/{secrets.token_hex(4)}/"
        self._entries: dict[str, _Entry] = {}
        #: What this machine says of the boxes.
        self._views: dict[str, BoxView] = {}
        #: The last document, and the state that it describes.
        self._seen: tuple[bytes, SharedState] = (b"", SharedState())
        self._next_tick_s = 0.0
        #: When requests of an earlier start are released, and when dead machines are looked for.
        self._clean_up_s = self._find_dead_s = 0.0
        # One change at a time: changes of the same machine would only repeat each other.
        self._lock = threading.RLock()
        self._wakes, self._is_closed = threading.Event(), False
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._keep_lease, self._listen)
        ]

    def start(self) -> None:
        """Tries to reach Redis, once; goes on to try, to keep the lease and to
        listen until `close`."""
        self._clean_up_s = self._clock.monotonic() + SETTLE_S
        self._renew_lease()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Releases everything and leaves the other machines."""
        with self._lock:
            self._is_closed = True
            self._entries.clear()
            try:
                self._change(lambda state, now: state.remove_machine(self._machine, now))
                with self._redis():
                    self.store.end_lease(self._machine)
            except StateUnavailable:
                pass  # The lease ends by itself.
        self._wakes.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()
        self.store.close()

    # What the Scheduler has, too.

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
        """See Scheduler. A box may be used if one machine can; of different bounds
        the smallest applies."""
        with self._lock:
            self._views[name] = (slots, max_loaded, is_up, is_draining)
            return self._change(
                lambda state, now: state.set_view(self._machine, name, self._views[name], now)
            )

    def report_loaded(self, name: str, models: Iterable[str], now: float) -> list[Decision]:
        """See Scheduler."""
        reported = list(models)
        with self._lock:
            return self._change(
                lambda state, now: state.scheduler.report_loaded(name, reported, now)
            )

    def acquire(self, request: Request, now: float) -> list[Decision]:
        """See Scheduler."""
        with self._lock:
            known = self._entries.get(request.id)
            if known and known.request is request:
                # It was announced while this call waited for its turn.
                return []
            if known or not request.candidates:
                raise ValueError(
                    f"request {request.id!r} has a slot or waits already, or has no candidates"
                )
            entry = _Entry(request, self._clock.monotonic())
            return self._add(
                entry, lambda state, now: state.scheduler.acquire(self._share(entry, now), now)
            )

    def hold(self, request: Request, box_name: str, started_s: float, now: float) -> Grant:
        """See Scheduler."""
        with self._lock:
            known = self._entries.get(request.id)
            if known and known.grant and known.grant.box == box_name:
                return known.grant
            grant = _hold(request, box_name, started_s)
            entry = _Entry(request, started_s, grant)
            decisions = self._add(entry, lambda state, now: self._restore(entry, state, now))
        if decisions:
            self.on_decisions(decisions)
        return grant

    def _add(self, entry: _Entry, operation: Operation) -> list[Decision]:
        """Adds a request of this machine, unless Redis can't be used."""
        self._entries[entry.request.id] = entry
        try:
            decisions = self._change(operation)
            entry.is_known = True
            return decisions
        finally:
            if not entry.is_known:
                self._entries.pop(entry.request.id, None)

    def release(
        self, request_id: str, now: float, outcome: Outcome | None = None
    ) -> list[Decision]:
        """See Scheduler."""
        with self._lock:
            self._entries.pop(request_id, None)
            return self._change(
                lambda state, now: state.scheduler.release(self._names + request_id, now, outcome)
            )

    def cancel_all(self, request_ids: Iterable[str], now: float) -> list[Decision]:
        """See Scheduler."""
        names = []
        with self._lock:
            for each in request_ids:
                self._entries.pop(each, None)
                names.append(self._names + each)
            return self._change(lambda state, now: state.scheduler.cancel_all(names, now))

    def tick(self, now: float) -> list[Decision]:
        """See Scheduler. To be called all the time, because other machines may die; does
        something every `tick_s`."""
        with self._lock:
            if self.is_available and self._clock.monotonic() < self._next_tick_s:
                return []
            self._next_tick_s = self._clock.monotonic() + self._tick_s
            others = self._seen[1].machines.keys() - {self._machine}
            with self._redis():
                dead = (
                    self.store.find_dead(others)
                    if self._clock.monotonic() >= self._find_dead_s
                    else set[str]()
                )

            def remove_dead(state: SharedState, now: float) -> list[Decision]:
                removed = [each for machine in dead for each in state.remove_machine(machine, now)]
                return [*removed, *state.scheduler.tick(now), *self._reconcile(state, now)]

            return self._change(remove_dead)

    def locate(self, request_id: str) -> Position | None:
        """See Scheduler; as it was when the state was last used here, at most a tick ago."""
        return self._seen[1].scheduler.locate(self._names + request_id)

    # Changes of the shared state.

    def _change(self, operation: Operation) -> list[Decision]:
        """Applies an operation to the state in Redis; returns the decisions about
        requests of this machine."""
        decisions: list[Decision] = []

        def change(text: bytes | None, now: float) -> tuple[bytes, bytes | None]:
            state = self._read(text)
            if self.machines > 1 and not state.machines:
                state.settles_s = now + SETTLE_TICKS * self._tick_s
            joined = [] if self._machine in state.machines else self._join(state, now)
            decisions[:] = joined + state.settle(now) + operation(state, now)
            self._seen = (state.dump(), state)
            return self._seen[0], _encode(
                each for each in decisions if not self._find_entry(each.request.id)
            )

        with self._redis():
            self.store.change(change)
        state = self._seen[1]
        if state.settles_s is None:
            self.machines = max(len(state.machines), 1)
        return list(self._accept(decisions))

    def _read(self, text: bytes | None) -> SharedState:
        """The state of a document; the one at hand if nobody else has changed it."""
        last, state = self._seen
        # Until the operation has succeeded, the state at hand belongs to no document.
        self._seen = (b"", state)
        if text is None or text != last:
            return SharedState.load(text, self.limits)
        state.scheduler.limits = self.limits
        return state

    def _join(self, state: SharedState, now: float) -> list[Decision]:
        """Says what this machine knows and holds, if Redis has lost it or never had it."""
        self.store.renew_lease(self._machine, self._lease_s)
        return state.set_views(self._machine, self._views, now) + self._reconcile(state, now)

    def _reconcile(self, state: SharedState, now: float) -> list[Decision]:
        """Makes the state agree with what this machine holds and waits for. What it
        holds comes first: a slot that has changed hands is not free when its last
        holder is found to be gone."""
        known, gone = self._compare(state)
        told = {key: each for key, each in self._entries.items() if each.is_known}
        # The messages about these were lost.
        decisions: list[Decision] = [
            grant for key, grant in known.items() if grant and not self._entries[key].grant
        ]
        for key, each in told.items():
            if each.grant and not known.get(key):
                decisions += self._restore(each, state, now)
        decisions += state.scheduler.cancel_all(gone, now)
        waiting = [each for key, each in told.items() if not each.grant and key not in known]
        return decisions + list(
            chain.from_iterable(self._restore(each, state, now) for each in waiting)
        )

    def _compare(self, state: SharedState) -> tuple[dict[str, Grant | None], list[str]]:
        """The requests of this machine that the state has, by their ids, with their slots; and the
        names of those that are over."""
        known: dict[str, Grant | None] = {}
        gone: list[str] = []
        for name, grant in state.scheduler.list_requests(f"{self._machine}/"):
            if entry := self._find_entry(name):
                known[entry.request.id] = grant
            elif name.startswith(self._names) or self._clock.monotonic() >= self._clean_up_s:
                gone.append(name)
        return known, gone

    def _restore(self, entry: _Entry, state: SharedState, now: float) -> list[Decision]:
        """Adds an entry that is not there, or not as it is. Nothing is refused, and no slot is
        taken away, even if that is too many."""
        request, waited_s = self._share(entry, now), self._clock.monotonic() - entry.since_s
        if not entry.grant:
            return state.scheduler.acquire(request, now, waited_s=waited_s)
        elsewhere = state.scheduler.release(request.id, now)
        state.scheduler.hold(request, entry.grant.box, now - waited_s, now)
        return elsewhere

    def _share(self, entry: _Entry, now: float) -> Request:
        """The request as it is in Redis, at this time of Redis."""
        request, since_s = entry.request, entry.request.waiting_since_s
        if since_s is not None:
            since_s = now - (self._clock.monotonic() - since_s)
        name, turns = self._names + request.id, request.conversation[-MAX_TURNS:]
        return replace(request, id=name, conversation=turns, waiting_since_s=since_s)

    def _find_entry(self, name: str) -> _Entry | None:
        """The request of this machine that has this name in Redis."""
        return (
            self._entries.get(name.removeprefix(self._names))
            if name.startswith(self._names)
            else None
        )

    def _accept(self, decisions: Iterable[Decision]) -> Iterator[Decision]:
        """The decisions about this machine's requests, each once."""
        for decision in decisions:
            entry = self._find_entry(decision.request.id)
            if entry is None or entry.grant:
                continue
            if isinstance(decision, Refusal):
                del self._entries[entry.request.id]
                yield replace(decision, request=entry.request)
            else:
                entry.since_s = self._clock.monotonic()
                entry.grant = replace(decision, request=entry.request, started_s=entry.since_s)
                yield entry.grant

    # Redis comes and goes.

    @contextmanager
    def _redis(self) -> Iterator[None]:
        """Turns any failure of Redis into StateUnavailable, at once if it is known."""
        if not self.is_available:
            raise StateUnavailable(self.problem)
        try:
            yield
        except redis.RedisError as error:
            self.note_lost(error)
            raise StateUnavailable(self.problem) from None

    def note_lost(self, error: Exception) -> None:
        """Records that Redis can't be used, whoever has noticed it; from now on it is
        tried again and again."""
        self.is_available, self.problem = False, str(error)
        # Meanwhile the leases end; until all machines are back, that means nothing.
        self._find_dead_s = math.inf
        self._wakes.set()

    def _keep_lease(self) -> None:
        while not self._is_closed:
            if not self._wakes.wait(self._lease_s / 3 if self.is_available else RETRY_S):
                self._renew_lease()
            self._wakes.clear()

    def _renew_lease(self) -> None:
        """Also joins the other machines, after Redis was away or before it was used at all."""
        try:
            self.store.renew_lease(self._machine, self._lease_s)
        except redis.RedisError as error:
            self.note_lost(error)
            return
        if self.is_available:
            return
        with self._lock:
            self.is_available, self._next_tick_s = True, 0.0
            if self._find_dead_s == math.inf:
                self._find_dead_s = self._clock.monotonic() + SETTLE_S
            if self.announce:
                rows = self.announce()
                entries = (
                    _Entry(request, since_s, _hold(request, box, since_s) if box else None, True)
                    for request, box, since_s in rows
                )
                self._entries = {each.request.id: each for each in entries}
            try:
                decisions = self._change(self._join)
            except StateUnavailable:
                return
            self.on_return()
        self.on_decisions(decisions)

    def _listen(self) -> None:
        while not self._is_closed:
            try:
                self.store.listen(self._receive, lambda: not self._is_closed)
            except redis.RedisError:
                time.sleep(RETRY_S)

    def _receive(self, message: bytes) -> None:
        if decisions := list(self._accept(map(_decode, orjson.loads(message)))):
            self.on_decisions(decisions)


def _hold(request: Request, box: str, started_s: float) -> Grant:
    return Grant(
        request, box, dict(request.candidates)[box], loads=False, started_s=started_s, cost_s=0.0
    )


def _encode(decisions: Iterable[Decision]) -> bytes | None:
    """The message about requests of other machines; None: there are no such decisions."""
    rows: list[list[Any]] = []
    for each in decisions:
        if isinstance(each, Refusal):
            rows.append([each.request.id, each.code, each.retry_after_s])
        else:
            rows.append([each.request.id, each.box, each.model, each.loads, each.cost_s])
    return orjson.dumps(rows) if rows else None


def _decode(row: list[Any]) -> Decision:
    """A decision about a request of which only the id is known."""
    request = Request(row[0], "", ())
    if len(row) == 3:
        return Refusal(request, row[1], row[2])
    return Grant(request, row[1], row[2], row[3], 0.0, row[4])
