"""The watch on waiting clients.

gunicorn does not report that a client has hung up, so one greenlet per worker polls the sockets of all clients that
wait. When a client is gone, its call ends and the upstream connection is closed, in whatever phase the call is.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from socket import SHUT_RD, SHUT_RDWR

import gevent
import gevent.event
from gevent import monkey

from ollama_proxy.upstreams import Call, ClientSocket

_socket = monkey.get_original("socket", "socket")

#: Seconds between two looks at the clients; the promise is to notice within one second.
WATCH_INTERVAL_S = 0.25


def shut(socket: ClientSocket, how: int) -> None:
    """Ends a connection, or one direction of it. Not by gevent's own socket: that would fail the waiting write with
    EBADF, which gunicorn takes for a fault of its own and logs with a traceback."""
    with contextlib.suppress(OSError), _socket(fileno=os.dup(socket.fileno())) as twin:
        twin.shutdown(how)


class ClientWatch:
    """Polls the sockets of waiting clients; `active` says how many there are."""

    def __init__(self) -> None:
        # The patched poll would put every socket into the event loop; the real one answers at once with no wait.
        self._poll: select.poll = monkey.get_original("select", "poll")()
        self._calls: dict[int, tuple[ClientSocket, Call]] = {}
        self._busy = gevent.event.Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None

    @property
    def active(self) -> int:
        """How many clients are watched."""
        return len(self._calls)

    def start(self) -> None:
        """Begins to look, if it has not begun; it costs nothing while nobody waits."""
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def add(self, socket: ClientSocket, call: Call) -> Callable[[], None]:
        """Watches `socket` for `call`; the caller runs what it gets back when the exchange is over, before the
        descriptor can be closed and given to somebody else."""
        number = socket.fileno()
        self._calls[number] = (socket, call)
        # POLLRDHUP also sees a close that hides behind pipelined bytes.
        self._poll.register(number, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        self.start()
        self._busy.set()

        def remove() -> None:
            if self._calls.get(number, (None, None))[1] is call:
                self._forget(number)

        return remove

    def look(self) -> None:
        """One look at all clients: who has left, and who has stopped reading."""
        for number, _ in self._poll.poll(0):
            _, call = self._calls[number]
            self._forget(number)
            call.leave()
        now = time.monotonic()
        for socket, call in list(self._calls.values()):
            if call.is_stalled(now):
                # The write that waits for it fails at once; the end of the exchange does the rest.
                shut(socket, SHUT_RDWR)
            elif call.is_upload_stalled(now, socket):
                # Only this side: the client can still be told.
                self._forget(socket.fileno())
                call.read_too_slow = True
                shut(socket, SHUT_RD)

    def _forget(self, number: int) -> None:
        del self._calls[number]
        self._poll.unregister(number)

    def _run(self) -> None:
        while True:
            self._busy.wait()
            gevent.sleep(WATCH_INTERVAL_S)
            self.look()
            if not self._calls:
                self._busy.clear()
