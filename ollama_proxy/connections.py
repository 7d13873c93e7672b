"""The client connections of a worker. When there are as many as it can hold, one that waits for its next request
makes room, so that nobody can keep others out by saying nothing."""

from __future__ import annotations

import select
import time
from collections import OrderedDict
from collections.abc import Hashable
from itertools import chain, islice
from socket import SHUT_RDWR
from typing import Generic, Protocol, TypeVar

from gevent import monkey

from ollama_proxy.streaming import shut

#: So many of those that wait are looked at, to find one that has not begun to ask.
LOOKED_AT = 16

#: A client that has come within so many seconds may be about to ask.
JUST_COME_S = 1.0

_poll = monkey.get_original("select", "poll")


class Socket(Hashable, Protocol):
    def fileno(self) -> int: ...


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

    def __len__(self) -> int:
        return len(self._new) + len(self._kept) + len(self._busy)

    def enter(self, socket: S) -> bool:
        """Takes one in; False where there is no room, and nobody who could make it."""
        if len(self) >= self.most and not self._make_room():
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

    def close_waiting(self, longer_than_s: float) -> None:
        """Closes those that have waited for a request for so long."""
        before = time.monotonic() - longer_than_s
        for socket in [each for each, since in chain(self._new.items(), self._kept.items()) if since <= before]:
            self._close_silent(socket)

    def _make_room(self) -> bool:
        """Closes one that waits: first those that have never asked for anything, unless they have only just come."""
        before = time.monotonic() - JUST_COME_S
        slow = [socket for socket, since in islice(self._new.items(), LOOKED_AT) if since <= before]
        waiting = list(islice(chain(slow, self._kept, self._new), LOOKED_AT))
        return any(self._close_silent(socket) for socket in waiting)

    def _close_silent(self, socket: S) -> bool:
        """Closes one that waits, unless a request has arrived that nobody has read yet."""
        if _has_input(socket):
            return False
        self.leave(socket)
        # Whoever reads from it finds its end.
        shut(socket, SHUT_RDWR)
        return True


def _has_input(socket: Socket) -> bool:
    poll = _poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))
