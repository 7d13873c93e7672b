"""The client connections of a worker. When there are as many as it can hold, one that waits for its
next request makes room, so that nobody can keep others out by saying nothing."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain, islice, takewhile
from socket import SHUT_RDWR

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.server.connection import Connection

#: So many of those that wait are looked at, to find one that has not begun to ask.
LOOKED_AT = 16

#: A client that has come within so many seconds may be about to ask.
JUST_COME_S = 1.0

#: Seconds for which a client may take nothing of a response that no call is behind.
SEND_IDLE_S = 15.0


class Connections:
    """At most `most` of them. A client has `waiting_s` for the head of its next request."""

    def __init__(self, most: int, *, waiting_s: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.most = most
        self._waiting_s = waiting_s
        #: Those that have not sent a request yet, and those that wait for another one; with the
        #: monotonic time since when, the longest wait first.
        self._new: OrderedDict[Connection, float] = OrderedDict()
        self._kept: OrderedDict[Connection, float] = OrderedDict()
        self._busy: set[Connection] = set()
        #: Those that have had their last response, the oldest first.
        self._lingering: OrderedDict[Connection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._new) + len(self._kept) + len(self._busy) + len(self._lingering)

    def enter(self, connection: Connection) -> bool:
        """Takes one in; False where there is no room, and nobody who could make it. The first to
        make it are those that have had their last response, then those that have never asked for
        anything, unless they have only just come."""
        if len(self) >= self.most:
            before = self._clock.monotonic() - JUST_COME_S
            slow = [each for each, since in islice(self._new.items(), LOOKED_AT) if since <= before]
            if self._lingering:
                self._close(next(iter(self._lingering)))
            elif not any(
                map(self._close_silent, list(islice(chain(slow, self._kept, self._new), LOOKED_AT)))
            ):
                return False
        self._new[connection] = self._clock.monotonic()
        return True

    def begin(self, connection: Connection) -> None:
        """It has sent a request."""
        self._new.pop(connection, None)
        self._kept.pop(connection, None)
        self._busy.add(connection)

    def end(self, connection: Connection) -> None:
        """The request is answered."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._kept[connection] = self._clock.monotonic()

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._new.pop(connection, None)
        self._kept.pop(connection, None)
        self._busy.discard(connection)
        self._lingering.pop(connection, None)

    def linger(self, connection: Connection) -> None:
        """It gets no further response, and its client may still be sending: keeps it open until the
        client has had a chance to read the last response."""
        self.leave(connection)
        self._lingering[connection] = None
        connection.linger()

    def close_waiting(self, longer_than_s: float) -> None:
        """Closes those that have waited for a request for so long."""
        before = self._clock.monotonic() - longer_than_s
        for connection in [
            each for each, since in chain(self._new.items(), self._kept.items()) if since <= before
        ]:
            self._close_silent(connection)

    def close_overdue(self) -> None:
        """Closes those that have not sent a whole head in time, and those that don't take a
        response. The latter is left to the client watch if it watches them."""
        now = self._clock.monotonic()
        for waiting in (self._new, self._kept):
            overdue = takewhile(lambda item: item[1] <= now - self._waiting_s, waiting.items())
            for connection, _ in list(overdue):
                self._close(connection)
        for connection in self._busy:
            if not connection.is_watched and connection.is_send_stalled(now, SEND_IDLE_S):
                connection.shut(SHUT_RDWR)

    def _close_silent(self, connection: Connection) -> bool:
        """Closes one that waits, unless a request has arrived that nobody has read yet."""
        if connection.has_input():
            return False
        self._close(connection)
        return True

    def _close(self, connection: Connection) -> None:
        self.leave(connection)
        connection.shut(SHUT_RDWR)
