"""A client's connection: its bytes, in and out, and the requests on it, one after the other.

The worker decides how long it lasts, `connections` who makes room, and `client_watch` when a client
is given up. These end a connection by `shut`; its greenlet then finds its end wherever it waits.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from contextlib import suppress
from socket import SHUT_WR
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from gevent import monkey

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.server.incoming import HeadLimits, IncomingRequest
from ollama_proxy.server.response import Response
from ollama_proxy.upstreams import yield_to_loop

#: The key of a request's connection in its WSGI environment.
CONNECTION_KEY = "ollama_proxy.connection"

#: Received at a time. A head is small, and what comes with it is kept until it is needed.
HEAD_BYTES, BODY_BYTES = 16 * 1024, 64 * 1024

#: Other connections get a turn after so many bytes from one client, and after so many requests. As
#: chunks of one byte these bytes take about 10 ms.
TURN_BYTES, TURN_REQUESTS = 16 * 1024, 8

#: How much is read from a connection after its last response, in bytes, and how long it
#: stays open at the most.
LINGER_BYTES, LINGER_S = 64 * 1024, 1.0

#: Seconds between two looks whether a client that may not send any more has closed its connection.
_LOOK_S = 0.05

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_poll = monkey.get_original("select", "poll")
_socket = monkey.get_original("socket", "socket")


class Connection:
    """`sock` is a gevent socket; `environ` is what all requests on it have in common."""

    def __init__(
        self,
        sock: Any,
        environ: WSGIEnvironment | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._socket, self._clock = sock, clock
        self._environ = {**(environ or {}), CONNECTION_KEY: self}
        #: The request that came last, perhaps only in parts.
        self.request: IncomingRequest | None = None
        self.response: Response | None = None
        #: Whether the client watch decides how long its client may take.
        self.is_watched = False
        self._buffer = b""
        self._bytes_since_turn = 0
        self._requests = 0
        self._bytes_sent = 0
        #: Since when bytes are on their way into the kernel; None: none are.
        self._sending_since: float | None = None
        #: How many of them had reached the client at the last look, and since when.
        self._delivered, self._delivered_at = -1, 0.0

    def fileno(self) -> int:
        """The descriptor."""
        number: int = self._socket.fileno()
        return number

    # Requests.

    def read_request(self, limits: HeadLimits) -> IncomingRequest | None:
        """The next request; None if the connection ends before. Raises InvalidRequest."""
        data = self._take_buffered() or self._receive(HEAD_BYTES)
        request = self.request = IncomingRequest(self._environ.copy(), limits, self)
        while data:
            rest = request.feed(data)
            if rest is not None:
                self._buffer = rest
                return request
            data = self._receive(HEAD_BYTES)
        return None

    def respond(
        self, request: IncomingRequest, application: WSGIApplication, *, is_last: bool
    ) -> bool:
        """Sends the application's response. False: it is the last one on this connection."""
        response = self.response = Response(request, self.send, is_last=is_last)
        pieces = application(request.environ, response.start_response)
        try:
            for piece in pieces:
                response.write(piece)
            response.finish()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        if not response.is_last:
            # A connection that waits holds nothing of what is over.
            self.request = self.response = None
        self._requests += 1
        if self._requests % TURN_REQUESTS == 0:
            yield_to_loop()  # also a client that sends many requests in advance waits between them
        return not response.is_last

    # Bytes.

    def receive(self) -> bytes:
        """The next bytes; b"" at the end."""
        return self._take_buffered() or self._receive(BODY_BYTES)

    def unread(self, data: bytes) -> None:
        """Puts bytes back that belong to the next request."""
        self._buffer = data + self._buffer

    def invite_body(self) -> None:
        """Says that the body of a request will be read, if its client waits for that."""
        has_answered = self.response is not None and self.response.is_head_sent
        if not self._buffer and not has_answered:
            self.send(_CONTINUE)

    def send(self, data: bytes) -> None:
        """Sends all of it."""
        self._sending_since = self._clock.monotonic()
        sent = self._socket.send(data)
        self._bytes_sent += sent
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                sent = self._socket.send(rest)
                self._bytes_sent += sent
                rest = rest[sent:]
        self._sending_since = None

    def _take_buffered(self) -> bytes:
        data, self._buffer = self._buffer, b""
        return data

    def _receive(self, size: int) -> bytes:
        data: bytes = self._socket.recv(size)
        self._bytes_since_turn += len(data)
        if self._bytes_since_turn >= TURN_BYTES:
            self._bytes_since_turn = 0
            yield_to_loop()  # a client that never pauses would leave no turn for other connections
        return data

    # Its state, and its end.

    def is_send_stalled(self, now: float, limit_s: float) -> bool:
        """Whether the client has taken none of what is being sent for so long; to be
        asked regularly. Slow progress is progress: what counts is that the bytes in
        the kernel become fewer."""
        if self._sending_since is None:
            return False
        queued = struct.unpack("i", fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        if self._bytes_sent - queued != self._delivered:
            self._delivered, self._delivered_at = self._bytes_sent - queued, now
        return now - max(self._sending_since, self._delivered_at) > limit_s

    def has_input(self) -> bool:
        """Whether bytes of a request have arrived that nobody has read yet."""
        return bool(self._buffer) or self._has_event(select.POLLIN)

    def _has_event(self, event: int) -> bool:
        poll = _poll()
        poll.register(self.fileno(), event)
        return bool(poll.poll(0))

    def shut(self, how: int) -> None:
        """Ends it, or one direction of it, for its greenlet as well. gevent's own socket
        would raise EBADF there."""
        with suppress(OSError), _socket(fileno=os.dup(self.fileno())) as twin:
            twin.shutdown(how)

    def linger(self) -> None:
        """Ends the writing side and waits for the client to close the connection, for LINGER_S at
        most. To close it while the client is sending would reset it, and could destroy the response
        that the client has not read yet.

        At most LINGER_BYTES of what it sends are read; after them it can't go on sending.
        """
        self.shut(SHUT_WR)
        ends_at, left = self._clock.monotonic() + LINGER_S, LINGER_BYTES
        with suppress(OSError):  # reset, or silent for too long
            while left > 0 and (left_s := ends_at - self._clock.monotonic()) > 0:
                self._socket.settimeout(left_s)
                data = self._socket.recv(left)
                if not data:
                    return
                left -= len(data)
            while self._clock.monotonic() < ends_at and not self._has_event(select.POLLRDHUP):
                self._clock.sleep(_LOOK_S)

    def close(self) -> None:
        """Closes it."""
        with suppress(OSError):
            self._socket.close()
        self._environ.clear()
        self.request = self.response = None
