"""A call: its deadlines, the way to end it early, and pauses that let other calls run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import TypeVar

import gevent
import gevent.event

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import CallEnded, ClientGone, UpstreamTimeout
from ollama_proxy.settings import Timeouts

T = TypeVar("T")

#: Seconds that a client has to receive the error of a call that was ended.
ERROR_FLUSH_TIMEOUT_S = 5.0

#: The shortest sleep that makes the event loop poll its sockets, in seconds.
TURN_S = 1e-6

#: Items of a long loop between two pauses: a few milliseconds of work. A conversation of
#: usual length has no pause.
ITEMS_PER_TURN = 500


def yield_to_loop() -> None:
    """Lets other greenlets run, also those that wait for a socket: after a sleep of 0 the loop runs
    what is ready, up to fifty times before it polls its sockets."""
    gevent.sleep(TURN_S)


def pace(items: Iterable[T]) -> Iterator[T]:
    """The items, with a pause for other greenlets after every 500 of them: thousands of messages
    would block every other request. It costs 30 ns per item."""
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_TURN == 0:
            yield_to_loop()


class Call:
    """The time limits of one client call and the way to cancel it."""

    __slots__ = (
        *(
            "_abort",
            "_branches",
            "_ends_by",
            "_own_s",
            "_waited_s",
            "body_ends_at",
            "clock",
            "ended",
            "ends_at",
        ),
        *("read_too_slow", "reading_since", "started", "timeouts", "trace_lines"),
    )

    def __init__(self, timeouts: Timeouts, clock: Clock = SYSTEM_CLOCK) -> None:
        #: Of all times of this call, and of all that waits for it.
        self.clock = clock
        self.started = clock.monotonic()
        #: The latest end, whatever the limits; the caller's own limit, in seconds, if that is why.
        self._ends_by = self._own_s = inf
        #: Seconds for which it waited its turn.
        self._waited_s = 0.0
        self.limit(timeouts)
        #: Why it was ended early; mostly because the client has disconnected. A class: an instance
        #: that was raised once would keep its traceback alive.
        self.ended: type[CallEnded] | None = None
        #: Since when the gateway waits for a piece of the client's body; None: it does not wait.
        self.reading_since: float | None = None
        #: Monotonic time at which the whole body has to be there.
        self.body_ends_at = inf
        #: Whether such a wait was ended.
        self.read_too_slow = False
        #: Header lines that tell upstreams which trace this belongs to.
        self.trace_lines = b""
        self._abort: Callable[[], None] | None = None
        self._branches: list[Call] = []

    def branch(self, timeouts: Timeouts | None = None) -> Call:
        """A call for concurrent work for the same client: it is ended with this one, and ends no
        later. `timeouts` None: with the same limits."""
        branch = Call(timeouts or self.timeouts, self.clock)
        branch._ends_by, branch._own_s, branch.ended = self.ends_at, self._own_s, self.ended
        branch.limit(branch.timeouts)
        branch.trace_lines = self.trace_lines
        self._branches.append(branch)
        return branch

    def limit(self, timeouts: Timeouts) -> None:
        """Sets the limits; the total one counts from the call's start, without the time
        for which it was held."""
        self.timeouts = timeouts
        #: Monotonic time of the total limit.
        self.ends_at = min(self.started + self._waited_s + timeouts.total_s, self._ends_by)

    def limit_by_caller(self, milliseconds: int | None) -> None:
        """Sets the caller's own limit, if there is one: from the call's start, also
        while the call is held."""
        if milliseconds:
            self._own_s = milliseconds / 1000
            self._ends_by = min(self._ends_by, self.started + self._own_s)
            self.limit(self.timeouts)

    def hold(self) -> None:
        """The call waits its turn: until `resume`, only the caller's own limit counts."""
        self.ends_at = self._ends_by

    def resume(self, waited_s: float) -> None:
        """The call goes on after this wait, which its total limit does not include."""
        self._waited_s += waited_s
        self.limit(self.timeouts)

    def attach(self, abort: Callable[[], None]) -> None:
        """Registers `abort`, which is called, at most once, when the call is
        ended; it must not block."""
        self._abort = abort
        self.check()

    def detach(self) -> None:
        """Removes the registered `abort`."""
        self._abort = None

    def pause(self, seconds: float) -> None:
        """Waits; raises CallEnded as soon as the call is ended."""
        over = gevent.event.Event()
        self.attach(over.set)
        try:
            self.clock.wait(over, seconds)
            self.check()
        finally:
            self.detach()

    def end(self, reason: type[CallEnded]) -> None:
        """Ends the call, and wakes the greenlet that waits for the upstream. The
        first reason is kept."""
        self.ended = self.ended or reason
        abort, self._abort = self._abort, None
        if abort is not None:
            abort()
        for branch in self._branches:
            branch.end(reason)

    def leave(self) -> None:
        """Ends the call because the client has disconnected."""
        self.end(ClientGone)

    @property
    def send_limit_s(self) -> float:
        """Seconds for which the client may accept no data before it is given up."""
        return ERROR_FLUSH_TIMEOUT_S if self.ended else self.timeouts.send_idle_s

    def is_upload_stalled(self, now: float) -> bool:
        """Whether the client's body stalls: no data within the limit, or the body is
        late, or the call is over."""
        if self.reading_since is None:
            return False
        paused = now - self.reading_since > self.timeouts.send_idle_s
        return self.ended is not None or paused or now > self.body_ends_at

    def check(self) -> None:
        """Raises CallEnded if the call was ended, UpstreamTimeout if the total limit is over."""
        if self.ended is not None:
            raise self.ended()
        self.total_left_s()

    def total_left_s(self) -> float:
        """Seconds until the total limit; raises UpstreamTimeout if there are none."""
        left = self.ends_at - self.clock.monotonic()
        if left <= 0:
            limit_s = min(self.timeouts.total_s, self._own_s)
            raise UpstreamTimeout(f"The answer took longer than {limit_s:g} s in total.")
        return left
