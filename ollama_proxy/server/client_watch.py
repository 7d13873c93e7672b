"""The watch on the clients of calls.

A greenlet that waits for an upstream doesn't notice that its client has hung up, so one
greenlet per worker polls the connections of all clients that wait. When a client is gone, its
call ends and the upstream connection is closed, in whatever phase the call is. A client that
stops reading or sending is cut.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from socket import SHUT_RD, SHUT_RDWR

import gevent
import gevent.event
from gevent import monkey

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.server.connection import Connection
from ollama_proxy.upstreams import Call

#: Seconds between two looks at the clients; the promise is to notice within one second.
WATCH_INTERVAL_S = 0.25

#: POLLRDHUP also sees a close that hides behind pipelined bytes.
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR

# The patched poll would put every socket into the event loop; the real one
# answers at once with no wait.
_poll = monkey.get_original("select", "poll")


class ClientWatch:
    """Polls the sockets of waiting clients; `active` says how many there are."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._calls: dict[int, tuple[Connection, Call]] = {}
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

    def add(self, connection: Connection, call: Call) -> Callable[[], None]:
        """Watches `connection` for `call`; the caller runs what it gets back when the exchange is
        over, before the descriptor can be closed and given to somebody else."""
        number = connection.fileno()
        self._calls[number] = (connection, call)
        connection.is_watched = True
        self.start()
        self._busy.set()

        def remove() -> None:
            if self._calls.get(number, (None, None))[1] is call:
                self._forget(number)

        return remove

    def look(self) -> None:
        """One look at all clients: who has left, and who has stopped reading."""
        # Registered only for a look: most calls end before the first one.
        poll = _poll()
        for number in self._calls:
            poll.register(number, _GONE)
        for number, _ in poll.poll(0):
            _, call = self._calls[number]
            self._forget(number)
            call.leave()
        now = self._clock.monotonic()
        for number, (connection, call) in list(self._calls.items()):
            if connection.is_send_stalled(now, call.send_limit_s):
                # The write that waits for it fails at once; the end of the exchange does the rest.
                connection.shut(SHUT_RDWR)
            elif call.is_upload_stalled(now):
                # Only this side: the client can still be told.
                self._forget(number)
                call.read_too_slow = True
                connection.shut(SHUT_RD)

    def _forget(self, number: int) -> None:
        self._calls.pop(number)[0].is_watched = False

    def _run(self) -> None:
        while True:
            self._busy.wait()
            self._clock.sleep(WATCH_INTERVAL_S)
            self.look()
            if not self._calls:
                self._busy.clear()
