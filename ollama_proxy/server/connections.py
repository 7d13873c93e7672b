"""The client connections of a worker. When there are as many as it can hold, one that waits for its next request
makes room, so that nobody can keep others out by saying nothing."""

from __future__ import annotations

import select
import time
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from itertools import chain, islice
from socket import SHUT_RDWR, SHUT_WR
from typing import Generic, Protocol, TypeVar

import gevent
from gevent import monkey

from ollama_proxy.server.client_watch import shut

#: So many of those that wait are looked at, to find one that has not begun to ask.
LOOKED_AT = 16

#: A client that has come within so many seconds may be about to ask.
JUST_COME_S = 1.0

#: How much is read from a connection after its last response, in bytes, and how long it stays open at the most.
LINGER_BYTES, LINGER_S = 64 * 1024, 1.0

#: Seconds between two looks whether a client that may not send any more has closed its connection.
_LOOK_S = 0.05

_poll = monkey.get_original("select", "poll")


class Socket(Hashable, Protocol):
    def fileno(self) -> int: ...

    def settimeout(self, seconds: float, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...


S = TypeVar("S", bound=Socket)


class Connections(Generic[S]):
    """At most `most` of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        #: Those that have not sent a request yet, and those that wait for another one; with the monotonic time since
        #: when, the longest wait first.
        self._new: OrderedDict[S, float] = OrderedDict()
        self._kept: OrderedDict[S, float] = OrderedDict()
        self._busy: set[S] = set()
        #: Those that have had their last response, the oldest first.
        self._lingering: OrderedDict[S, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._new) + len(self._kept) + len(self._busy) + len(self._lingering)

    def enter(self, socket: S) -> bool:
        """Takes one in; False where there is no room, and nobody who could make it. The first to make it are those that
        have had their last response, then those that have never asked for anything, unless they have only just come."""
        if len(self) >= self.most:
            before = time.monotonic() - JUST_COME_S
            slow = [each for each, since in islice(self._new.items(), LOOKED_AT) if since <= before]
            if self._lingering:
                self._close(next(iter(self._lingering)))
            elif not any(map(self._close_silent, list(islice(chain(slow, self._kept, self._new), LOOKED_AT)))):
                return False
        self._new[socket] = time.monotonic()
        return True

    def begin(self, socket: S) -> None:
        """It has sent a request."""
        self._new.pop(socket, None)
        self._kept.pop(socket, None)
        self._busy.add(socket)

    def end(self, socket: S) -> None:
        """The request is answered."""
        if socket in self._busy:
            self._busy.remove(socket)
            self._kept[socket] = time.monotonic()

    def leave(self, socket: S) -> None:
        """It is closed."""
        self._new.pop(socket, None)
        self._kept.pop(socket, None)
        self._busy.discard(socket)
        self._lingering.pop(socket, None)

    def linger(self, socket: S) -> None:
        """It gets no further response, and its client may still be sending: keeps it open until the client has had a
        chance to read the last response, see `linger`."""
        self.leave(socket)
        self._lingering[socket] = None
        linger(socket)

    def close_waiting(self, longer_than_s: float) -> None:
        """Closes those that have waited for a request for so long."""
        before = time.monotonic() - longer_than_s
        for socket in [each for each, since in chain(self._new.items(), self._kept.items()) if since <= before]:
            self._close_silent(socket)

    def _close_silent(self, socket: S) -> bool:
        """Closes one that waits, unless a request has arrived that nobody has read yet."""
        if _has_event(socket, select.POLLIN):
            return False
        self._close(socket)
        return True

    def _close(self, socket: S) -> None:
        self.leave(socket)
        # Whoever reads from it finds its end.
        shut(socket, SHUT_RDWR)


def linger(socket: Socket) -> None:
    """Ends the writing side of a connection and waits for the client to close it, for LINGER_S at most. To close it
    while the client is sending would reset it, and could destroy the response that the client has not read yet.

    At most LINGER_BYTES of what it sends are read; after them it can't go on sending.
    """
    shut(socket, SHUT_WR)
    ends_at, left = time.monotonic() + LINGER_S, LINGER_BYTES
    with suppress(OSError):  # reset, or silent for too long
        while left > 0 and (left_s := ends_at - time.monotonic()) > 0:
            socket.settimeout(left_s)
            data = socket.recv(left)
            if not data:
                return
            left -= len(data)
        while time.monotonic() < ends_at and not _has_event(socket, select.POLLRDHUP):
            gevent.sleep(_LOOK_S)


def _has_event(socket: Socket, event: int) -> bool:
    """Whether this has happened to a connection, or its end."""
    poll = _poll()
    poll.register(socket.fileno(), event)
    return bool(poll.poll(0))
