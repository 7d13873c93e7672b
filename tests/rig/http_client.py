"""A raw HTTP/1.1 client that shows what a library hides: whether a body really ended, and
when which bytes came."""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import h11

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]
Body = bytes | str | dict[str, Any] | list[Any] | None

_MAX_HEAD_BYTES = 1 << 20


class Headers(list[tuple[str, str]]):
    """The headers in the order they came; names are looked up in any case."""

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of a header."""
        return next(iter(self.get_all(name)), default)

    def get_all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self if key.lower() == name.lower()]


@dataclass(frozen=True)
class Answer:
    """A whole answer. ``complete`` is False when the connection ended before the body did."""

    status: int
    headers: Headers
    body: bytes
    complete: bool

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Line:
    """One line of a stream without its end, and the monotonic time at which
    its last byte arrived."""

    data: bytes
    at: float

    def json(self) -> Any:
        """The line as JSON; an SSE line loses its ``data:`` first."""
        return json.loads(self.data.removeprefix(b"data:"))


class Stream:
    """An exchange in progress: the request has been sent, the answer is read
    as far as the test wants.

    ``complete`` becomes True only when the body ended as it was framed. The caller
    closes it, or uses ``with``.
    """

    def __init__(self, sock: socket.socket, *, bodyless: bool = False) -> None:
        self.sock = sock
        self.complete = False
        #: sizes of the HTTP chunks that have arrived completely
        self.chunks: list[int] = []
        self._head: tuple[int, Headers] | None = None
        #: what has arrived of the body and was not read yet, and of a chunk that has
        #: not arrived completely
        self._body, self._chunk = bytearray(), bytearray()
        self._is_chunked = False
        self._ended = False
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        # What was sent may be no valid request, so the parser gets one that has
        # the same kind of answer.
        self._parser.send(
            h11.Request(method="HEAD" if bodyless else "GET", target="/", headers=[("Host", "x")])
        )
        self._parser.send(h11.EndOfMessage())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def status(self) -> int:
        """The status; reads the head if that has not been done."""
        return self.read_head()[0]

    @property
    def headers(self) -> Headers:
        """The headers; reads the head if that has not been done."""
        return self.read_head()[1]

    def read_head(self, timeout: float = 10) -> tuple[int, Headers]:
        """Status and headers. Raises ConnectionError when the connection ends first,
        TimeoutError if silent."""
        deadline = time.monotonic() + timeout
        self._parse()
        while self._head is None:
            if not self._receive(deadline - time.monotonic()):
                raise ConnectionError(
                    f"the connection ended before the answer: {self._parser.trailing_data[0]!r}"
                )
            self._parse()
        return self._head

    def read_some(self, timeout: float = 10) -> bytes:
        """What has arrived of the body, in whole chunks; b"" at its end. Raises
        TimeoutError when nothing comes."""
        self.read_head(timeout)
        deadline = time.monotonic() + timeout
        while not self._body and not self._ended:
            self._ended = not self._receive(deadline - time.monotonic())
            self._parse()
        data = bytes(self._body)
        self._body.clear()
        return data

    def read_all(self, timeout: float = 10) -> bytes:
        """The rest of the body; ``timeout`` is for all of it."""
        deadline = time.monotonic() + timeout
        return b"".join(iter(lambda: self.read_some(max(0.0, deadline - time.monotonic())), b""))

    def lines(self, timeout: float = 10) -> Iterator[Line]:
        """Lines as they arrive, each within ``timeout`` of the one before; an unfinished
        last line comes as it is."""
        rest = b""
        while data := self.read_some(timeout):
            now = time.monotonic()
            *whole, rest = (rest + data).split(b"\n")
            yield from (Line(line.rstrip(b"\r"), now) for line in whole)
        if rest:
            yield Line(rest, time.monotonic())

    def close(self, *, reset: bool = False) -> None:
        """Leave at once, without reading the rest; with ``reset`` by a TCP reset."""
        if reset and self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _receive(self, timeout: float) -> bool:
        """Give the parser what has arrived; False when the other side has ended the connection."""
        self.sock.settimeout(max(0.001, timeout))
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            # The parser is not told: only a clean end may be the end of a body without a length.
            return False
        if data or self._head is not None:
            self._parser.receive_data(data)
        return bool(data)

    def _parse(self) -> None:
        """Take everything that the parser has."""
        try:
            while not self.complete and (event := self._parser.next_event()) is not h11.NEED_DATA:
                self._take(event)
        except h11.RemoteProtocolError:
            # At the end of the connection it is a body that is cut; everything else is no HTTP.
            if not self._parser.trailing_data[1]:
                raise

    def _take(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> None:
        match event:
            case h11.Response():
                items = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in event.headers.raw_items()
                ]
                headers = Headers(items)
                self._head = event.status_code, headers
                self._is_chunked = (headers.get("transfer-encoding") or "").lower() == "chunked"
            case h11.Data():
                self._chunk += event.data
                if event.chunk_end:
                    self.chunks.append(len(self._chunk))
                if event.chunk_end or not self._is_chunked:
                    self._body += self._chunk
                    self._chunk.clear()
            case h11.EndOfMessage():
                self._ended = self.complete = True


def open_stream(
    url: str,
    method: str = "GET",
    path: str = "/",
    body: Body = None,
    headers: HeaderItems = (),
    *,
    wait_for_head: bool = True,
    timeout: float = 10,
    receive_buffer: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Stream:
    """Send a request on a new connection. Without ``wait_for_head`` the test can leave
    before there is an answer.

    ``receive_buffer`` (bytes) makes a small window, for a client that stops reading. A dict
    or a list is sent as JSON.
    """
    sock = _connect(url, timeout, receive_buffer, ssl_context)
    stream = Stream(sock, bodyless=method == "HEAD")
    try:
        sock.sendall(encode_request(urlsplit(url).netloc, method, path, body, headers))
        if wait_for_head:
            stream.read_head(timeout)
    except BaseException:
        stream.close()
        raise
    return stream


def request(
    url: str,
    method: str = "GET",
    path: str = "/",
    body: Body = None,
    headers: HeaderItems = (),
    *,
    timeout: float = 10,
    ssl_context: ssl.SSLContext | None = None,
) -> Answer:
    """One exchange on a connection of its own. Raises ConnectionError when it
    ends before the head."""
    with open_stream(
        url, method, path, body, headers, timeout=timeout, ssl_context=ssl_context
    ) as stream:
        data = stream.read_all(timeout)
        return Answer(stream.status, stream.headers, data, stream.complete)


def raw(
    port: int, data: bytes, *, timeout: float = 5, quiet_s: float = 1.0, half_close: bool = False
) -> bytes:
    """Send these bytes and return what comes back until the other side closes or has
    been quiet for ``quiet_s``.

    Nothing at all within ``timeout`` gives b"". ``half_close`` ends the
    sending side after the bytes.
    """
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            while select.select([sock], [], [], quiet_s if received else timeout)[0] and (
                more := sock.recv(65536)
            ):
                received += more
        except ConnectionError:
            pass  # a reset ends the answer too
    return bytes(received)


def encode_request(
    host: str, method: str, path: str, body: Body = None, headers: HeaderItems = ()
) -> bytes:
    """The bytes of a request. Host, Connection and Content-Length are added where
    the headers have none."""
    items = list(headers.items() if isinstance(headers, Mapping) else headers)
    given = {name.lower() for name, _ in items}
    data = _encode_body(body)
    defaults = [("Host", host), ("Connection", "close")]
    if isinstance(body, dict | list):
        defaults.append(("Content-Type", "application/json"))
    if body is not None and "transfer-encoding" not in given:
        defaults.append(("Content-Length", str(len(data))))
    items = [item for item in defaults if item[0].lower() not in given] + items
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in items), "", ""]
    return "\r\n".join(lines).encode("latin-1") + data


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def _encode_body(body: Body) -> bytes:
    if isinstance(body, dict | list):
        return json.dumps(body).encode()
    return body.encode() if isinstance(body, str) else body or b""


def _connect(
    url: str, timeout: float, receive_buffer: int | None, ssl_context: ssl.SSLContext | None
) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(parts.path)
        return sock
    host = parts.hostname or "127.0.0.1"
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((host, parts.port or (443 if parts.scheme == "https" else 80)))
        if parts.scheme == "https":
            return (ssl_context or ssl.create_default_context()).wrap_socket(
                sock, server_hostname=host
            )
    except BaseException:
        sock.close()
        raise
    return sock
