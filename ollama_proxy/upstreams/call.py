"""A call: its deadlines, and how it is ended early."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

import gevent
import gevent.event

from ollama_proxy.errors import CallEnded, ClientGone, UpstreamTimeout
from ollama_proxy.settings import Timeouts

#: Seconds that a client has to take the last words of a call that was ended for it.
ERROR_FLUSH_TIMEOUT_S = 5.0


#: As short as a turn can be that is none of the loop's own, in seconds.
TURN_S = 1e-6


def yield_to_loop() -> None:
    """Lets others go on, also those that wait for a socket: after a sleep of 0 the loop goes on with what is ready, up
    to fifty times before it looks at one."""
    gevent.sleep(TURN_S)


class Call:
    """The time limits of one client call and the way to cancel it."""

    __slots__ = (
        *("_abort", "_branches", "_ends_by", "body_ends_at", "ended", "ends_at", "read_too_slow", "reading_since"),
        *("started", "timeouts"),
    )

    def __init__(self, timeouts: Timeouts) -> None:
        self.started = time.monotonic()
        #: Whatever the limits say, it ends by then.
        self._ends_by = inf
        self.limit(timeouts)
        #: What has ended it before its time; mostly the client, who has left. A kind: an error that was raised once
        #: holds on to everything that was there then.
        self.ended: type[CallEnded] | None = None
        #: Since when a piece of the client's body is waited for; None: none is.
        self.reading_since: float | None = None
        #: Monotonic time at which the whole body has to be there.
        self.body_ends_at = inf
        #: Such a wait was ended.
        self.read_too_slow = False
        self._abort: Callable[[], None] | None = None
        self._branches: list[Call] = []

    def branch(self, timeouts: Timeouts | None = None) -> Call:
        """A call of its own, for work that goes on beside other work for the same client: it leaves with this one, and
        ends no later. `timeouts` None: with the same limits."""
        branch = Call(timeouts or self.timeouts)
        branch._ends_by, branch.ended = self.ends_at, self.ended
        branch.limit(branch.timeouts)
        self._branches.append(branch)
        return branch

    def limit(self, timeouts: Timeouts) -> None:
        """From now on these limits count; the total one from the call's start."""
        self.timeouts = timeouts
        #: Monotonic time of the total limit.
        self.ends_at = min(self.started + timeouts.total_s, self._ends_by)

    def attach(self, abort: Callable[[], None]) -> None:
        """`abort` is called, at most once, when the call is ended; it must not block."""
        self._abort = abort
        self.check()

    def detach(self) -> None:
        """Nothing is to be cancelled any more."""
        self._abort = None

    def pause(self, seconds: float) -> None:
        """Waits; raises CallEnded as soon as nobody waits any more."""
        over = gevent.event.Event()
        self.attach(over.set)
        try:
            over.wait(seconds)
            self.check()
        finally:
            self.detach()

    def end(self, reason: type[CallEnded]) -> None:
        """It is over, and this is why: wakes whoever waits for the upstream. The first reason counts."""
        self.ended = self.ended or reason
        abort, self._abort = self._abort, None
        if abort is not None:
            abort()
        for branch in self._branches:
            branch.end(reason)

    def leave(self) -> None:
        """The client is gone."""
        self.end(ClientGone)

    @property
    def send_limit_s(self) -> float:
        """Seconds that the client may take none of what is sent to it."""
        return ERROR_FLUSH_TIMEOUT_S if self.ended else self.timeouts.send_idle_s

    def is_upload_stalled(self, now: float) -> bool:
        """Nothing of the client's body has come within its limit, or not all of it, or the call is over."""
        if self.reading_since is None:
            return False
        paused = now - self.reading_since > self.timeouts.send_idle_s
        return self.ended is not None or paused or now > self.body_ends_at

    def check(self) -> None:
        """Raises CallEnded when nobody waits any more, UpstreamTimeout when the total limit is over."""
        if self.ended is not None:
            raise self.ended()
        self.total_left_s()

    def total_left_s(self) -> float:
        """Seconds until the total limit; raises UpstreamTimeout when there are none."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise UpstreamTimeout(f"The answer took longer than {self.timeouts.total_s:g} s in all.")
        return left
