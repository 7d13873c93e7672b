"""The test rig: real sockets on both sides of a real gateway process, with nothing of
the server stack mocked.

This module is the lowest layer: one accepted connection, the request read from it, the
answer that goes out, and the log of what happened when. `fault_upstream` and
`replay_upstream` put servers on top of it.
"""

from __future__ import annotations

import fcntl
import json
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from tests.rig.deadline import wait_until

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]
NDJSON = {"Content-Type": "application/x-ndjson"}
SSE = {"Content-Type": "text/event-stream"}

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL
STALLED_S = 120.0


class PeerClosed(Exception):
    """The other side has left; the connection's script is over."""


class HangUp(Exception):
    """A script decided that the connection ends here."""


@dataclass
class SeenRequest:
    """One request as it arrived. ``at`` is the monotonic time at which its head was complete."""

    method: str
    path: str
    raw_path: str
    headers: list[tuple[str, str]]
    body: bytes
    at: float
    connection: int
    #: False while the body has not been read to its end (peer left, or the script does not read it)
    complete: bool = False
    version: str = "HTTP/1.1"

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first value of a header, by name in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Event:
    """Something that happened on a connection.

    Kinds: accepted, request, bad_request, sent, reset, peer_stayed, tls_failed, and at its
    end peer_closed or closed.
    """

    kind: str
    connection: int
    at: float
    size: int = 0


class Log:
    """What the connections' threads saw."""

    def __init__(self) -> None:
        #: Held while something is added or forgotten.
        self.changed = threading.Lock()
        self.requests: list[SeenRequest] = []
        self.events: list[Event] = []
        self.sent: dict[int, int] = {}

    def event(self, kind: str, connection: int, size: int = 0) -> None:
        with self.changed:
            self.events.append(Event(kind, connection, time.monotonic(), size))

    def request(self, request: SeenRequest) -> None:
        with self.changed:
            self.requests.append(request)
        self.event("request", request.connection)

    def wait(self, predicate: Callable[[], Any], seconds: float, what: Callable[[], str]) -> Any:
        return wait_until(predicate, seconds, what)


class Wire:
    """One accepted connection. Whatever it waits for, it notices at once when the peer leaves."""

    def __init__(self, sock: socket.socket, number: int, log: Log) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.number = number
        self.log = log
        self.buffer = bytearray()
        self.stopping = False
        #: Whether what arrives is the body of a request that is in the log already.
        self.leaves_body = False
        self._is_waiting = False
        log.sent[number] = 0

    def handshake(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        secure = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock = secure
        self._when_ready(secure.do_handshake, select.POLLIN, 5)

    def wait(self, seconds: float, events: int = 0) -> bool:
        """Wait for ``events`` or until the time is over (False). Raises PeerClosed as soon
        as the peer has left."""
        poller = select.poll()
        poller.register(self.sock, events | _GONE)
        self._is_waiting = True
        seen = dict(poller.poll(max(0.0, seconds) * 1000)).get(self.sock.fileno(), 0)
        self._is_waiting = False
        if seen & _GONE and not seen & select.POLLIN & events:
            raise PeerClosed
        return bool(seen)

    def is_quiet(self) -> bool:
        """Whether the log tells of everything that has arrived, the peer's end included. For
        other threads."""
        descriptor = self.sock.fileno()
        if descriptor < 0:
            return False  # its end is logged in a moment
        poller = select.poll()
        poller.register(descriptor, _GONE if self.leaves_body else _GONE | select.POLLIN)
        # In this order: what has left the kernel's buffer was taken by a thread that waits no more.
        if poller.poll(0):
            return False
        return self.leaves_body or (self._is_waiting and not self.buffer)

    def send(self, data: bytes, limit_s: float = STALLED_S) -> None:
        """Send everything. Raises HangUp when the peer has made no room for
        it within ``limit_s``."""
        deadline, view = time.monotonic() + limit_s, memoryview(data)
        while view:
            self.wait(0)
            left_s = deadline - time.monotonic()
            count = self._when_ready(partial(self.sock.send, view), select.POLLOUT, left_s)
            self.log.sent[self.number] += count
            view = view[count:]
        self.log.event("sent", self.number, len(data))

    def receive(self, seconds: float) -> bool:
        """Add what has arrived to the buffer; False when nothing came in time. Raises
        PeerClosed at the end."""
        try:
            data = self._when_ready(lambda: self.sock.recv(65536), select.POLLIN, seconds)
        except HangUp:
            return False
        if not data:
            raise PeerClosed
        self.buffer += data
        return True

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        while len(self.buffer) < count:
            self._receive_more()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def take_line(self) -> bytes:
        """One line, without its end."""
        while b"\n" not in self.buffer:
            self._receive_more()
        return self.take(self.buffer.index(b"\n") + 1).rstrip(b"\r\n")

    def reset(self) -> None:
        """End with RST, after the peer's kernel has confirmed everything that was sent."""
        self.drain()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.log.event("reset", self.number)

    def drain(self) -> None:
        """Wait (at most a second) until the kernel has nothing of ours left to deliver."""
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if not struct.unpack(
                "i", fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
            )[0]:
                return
            time.sleep(0.001)

    def shut(self, how: int) -> None:
        """Shut one or both directions; also called by another thread, so a TLS
        session is left as it is."""
        try:
            socket.socket.shutdown(self.sock, how)
        except OSError:
            pass  # the peer was faster

    def _receive_more(self) -> None:
        if not self.receive(STALLED_S):
            raise HangUp

    def _when_ready(self, operation: Callable[[], Any], events: int, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except (BlockingIOError, ssl.SSLWantWriteError):
                wanted = events
            except (ConnectionError, ssl.SSLEOFError):
                raise PeerClosed from None
            if not self.wait(deadline - time.monotonic(), wanted):
                raise HangUp


class Turn:
    """One request and the answer that its script gives on this connection."""

    def __init__(self, wire: Wire, request: SeenRequest) -> None:
        self.wire = wire
        self.request = request
        self.close_after = (
            request.header("connection") or ""
        ).lower() == "close" or request.version == "HTTP/1.0"
        self.reads_body = True
        self._open_chunks = False
        self._headed = False
        self._bodyless = request.method == "HEAD"
        self._owed = 0

    def read_body(self) -> None:
        """Read the request's body to its end, whichever way it is framed; once."""
        request, wire = self.request, self.wire
        if request.complete:
            return
        if (request.header("expect") or "").lower() == "100-continue":
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if "chunked" in (request.header("transfer-encoding") or "").lower():
                request.body = self._chunked_body()
            else:
                request.body = wire.take(int(request.header("content-length") or 0))
        except PeerClosed:
            request.body += bytes(wire.buffer)
            raise
        request.complete = True

    def head(self, status: int, headers: HeaderItems, chunked: bool) -> None:
        """Send the head; ``chunked`` adds that framing unless the headers or the
        status say another one."""
        items = list(headers.items() if isinstance(headers, Mapping) else headers)
        given = {name.lower(): value for name, value in items}
        self._headed = True
        self._bodyless = self._bodyless or status in (204, 304)
        if (
            chunked
            and not self._bodyless
            and not given.keys() & {"content-length", "transfer-encoding"}
        ):
            items.append(("Transfer-Encoding", "chunked"))
        if self.close_after and "connection" not in given:
            items.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in items)]
        self.wire.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._frame_as({name.lower(): value for name, value in items})

    def send(self, data: bytes, limit_s: float = STALLED_S) -> None:
        """Send bytes without any framing."""
        self.wire.send(data, limit_s)
        self._owed -= len(data)

    def piece(self, data: bytes, edges: int | None = None, limit_s: float = STALLED_S) -> None:
        """Send part of the body, framed as the head said, ``edges`` bytes of the wire per send."""
        if self._bodyless or not data:
            return
        framed = chunk(data) if self._open_chunks else data
        for cut in pieces(framed, edges):
            self.send(cut, limit_s)

    def begin(self, headers: HeaderItems) -> None:
        """Send a plain 200 head, unless the script has sent one."""
        if not self._headed:
            self.head(200, headers, True)

    def end_chunks(self) -> None:
        """Send the final chunk, once."""
        if self._open_chunks:
            self._open_chunks = False
            self.wire.send(b"0\r\n\r\n")

    def finish(self) -> bool:
        """End the answer the way a handler that returns does. True when the
        connection can be used again."""
        self.end_chunks()
        if not self.request.complete:
            self._linger()
            return False
        return not self.close_after and self._owed <= 0

    def _frame_as(self, headers: Mapping[str, str]) -> None:
        self._open_chunks = not self._bodyless and headers.get("transfer-encoding", "") == "chunked"
        self._owed = 0 if self._bodyless else int(headers.get("content-length") or 0)
        framed = self._bodyless or self._open_chunks or "content-length" in headers
        self.close_after = (
            self.close_after or not framed or headers.get("connection", "").lower() == "close"
        )

    def _chunked_body(self) -> bytes:
        parts = []
        while size := int(self.wire.take_line().split(b";")[0], 16):
            parts.append(self.wire.take(size))
            self.wire.take_line()
        while self.wire.take_line():
            pass  # trailers
        return b"".join(parts)

    def _linger(self) -> None:
        """Let the answer arrive: closing with unread bytes would make the kernel send RST
        and could destroy it."""
        self.wire.shut(socket.SHUT_WR)
        self.wire.wait(1)


def parse_head(raw: bytes, connection: int) -> SeenRequest:
    """A request from its head. Raises ValueError if the request line has not three parts."""
    line, *fields = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, raw_path, version = line.split(" ")
    headers = [(name, value.strip()) for name, _, value in (text.partition(":") for text in fields)]
    path = unquote(raw_path.partition("?")[0])
    return SeenRequest(
        method, path, raw_path, headers, b"", time.monotonic(), connection, version=version
    )


def chunk(data: bytes) -> bytes:
    """``data`` as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def pieces(data: bytes, size: int | None) -> list[bytes]:
    """``data`` cut every ``size`` bytes; None leaves it whole."""
    if size is None or not data:
        return [data]
    return [data[start : start + size] for start in range(0, len(data), size)]


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """``data`` in two pieces, cut at each offset, and in single bytes."""
    yield from ([data[:at], data[at:]] for at in range(1, len(data)))
    yield pieces(data, 1)
