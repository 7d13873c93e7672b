"""A request as it comes in on a client's connection: its head, which httptools parses within its
limits, becomes a WSGI environment; its body is read when the application reads it, piece by piece.

Each parser gets one head and nothing else, so the next request on a connection begins where this
one ends, whatever a parser makes of its bytes. httptools refuses bare CR and LF, NUL, folded
lines, blanks before a colon, a length beside a coding, and two lengths; what it lets pass is
refused here (httptools 0.9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIEnvironment

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ollama_proxy.errors import BadRequest

#: Largest head of a request, from its first line to the empty one; also the most that a chunked
#: body may have between two pieces of data: extensions and trailers.
MAX_HEAD_BYTES = 32 * 1024

#: Names of headers up to this many bytes are cached; longer ones, which no client sends,
#: could fill the memory.
MAX_CACHED_NAME = 64

_END = b"\r\n\r\n"

#: httptools also takes several blanks, other protocols, and any number of line
#: ends before the line.
_REQUEST_LINE = re.compile(rb"(?:\r\n)?([A-Z-]+) ([!\"$-~]+) HTTP/1\.([01])\r\n")

#: The path in a line that may be wrong in other ways.
_PATH = re.compile(rb"(?:\r\n)?\S+ (?:https?://[^\s/?]*)?(/[^\s?]*)\S* HTTP/")

#: RFC 9112, section 3.2.2. A user name in the authority is an error, see RFC 9110, section 4.2.4.
_ABSOLUTE_FORM = re.compile(r"https?://([^/?@]+)(/.*|\?.*|)", re.IGNORECASE)

#: Headers that have one value; two of them could be read two ways.
_SINGLE = frozenset({"HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH"})

#: What comes before a chunked body, for a parser that gets the body only: it ignores requests
#: to change the protocol.
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class InvalidRequest(BadRequest):
    """The bytes of a client are no request that can be answered; nothing more can be
    read from its connection."""

    def __init__(self, text: str = "The request is not valid HTTP.", status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class BodyError(OSError):
    """A chunked body is not valid, or ended before its end."""


class HeadLimits(NamedTuple):
    """Largest first line and header, in bytes without the line's end and with
    it, and most headers."""

    line_bytes: int
    field_bytes: int
    fields: int


class Source(Protocol):
    """Where a body comes from: the connection."""

    def receive(self) -> bytes: ...

    def unread(self, data: bytes) -> None: ...

    def invite_body(self) -> None: ...


class IncomingRequest:
    """A request whose head is fed to it. `environ` is filled on the way and complete when
    `feed` has returned bytes."""

    def __init__(self, environ: WSGIEnvironment, limits: HeadLimits, source: Source) -> None:
        self.environ = environ
        self.body = Body(source, 0)
        self.method = ""
        #: False: HTTP/1.0, which knows no chunks.
        self.is_http_1_1 = False
        #: Whether the client may send another request on its connection.
        self.is_persistent = False
        self._limits = limits
        self._source = source
        self._head = bytearray()
        self._fields = 0
        self._heads_parsed = 0
        self._is_ambiguous = False
        self._parser: HttpRequestParser | None = HttpRequestParser(self)

    # What the parser calls; an exception here would come back as another one,
    # so these only collect.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        key = _environ_key(name) if len(name) <= MAX_CACHED_NAME else _make_environ_key(name)
        environ = self.environ
        if not key:
            return
        text = value.decode("latin-1").strip(" \t")
        if key not in environ:
            environ[key] = text
        elif key in _SINGLE:
            self._is_ambiguous = True
        else:
            environ[key] += "," + text

    def on_headers_complete(self) -> None:
        self._heads_parsed += 1

    # The head.

    def feed(self, data: bytes) -> bytes | None:
        """Takes in the next bytes of the head. When it is complete, returns those that follow it.

        Raises InvalidRequest as soon as no valid head can begin like this.
        """
        assert self._parser is not None, "the head is complete"
        known = len(self._head)
        self._head += data
        end = self._head.find(_END, max(0, known - 3)) + len(_END)
        is_complete = end >= len(_END)
        self._check_size(end if is_complete else len(self._head))
        try:
            self._parser.feed_data(data[: end - known] if is_complete else data)
        except HttpParserUpgrade:
            pass  # the offer is declined by answering in HTTP/1.1
        except HttpParserError:
            raise self._coding_error() or InvalidRequest() from None
        if self._fields > self._limits.fields:
            raise _too_large()
        if self._is_ambiguous or self._heads_parsed != is_complete:
            raise InvalidRequest  # also if the parser sees another end than is seen here
        if not is_complete:
            return None
        self._parser = None  # it holds on to this request
        del self._head[end:]
        self._complete()
        return data[end - known :]

    def _check_size(self, size: int) -> None:
        start = 2 if self._head.startswith(b"\r\n") else 0
        most = start + self._limits.line_bytes + 2
        if len(self._head) >= most and self._head.find(b"\r\n", start, most) < 0:
            self._head.clear()  # of such a line not even the path is kept
            raise InvalidRequest("The address of the request is too long.", 414)
        if size > MAX_HEAD_BYTES:
            raise _too_large()

    def _complete(self) -> None:
        line = _REQUEST_LINE.match(self._head)
        if line is None:
            raise InvalidRequest
        if len(self._head) > self._limits.field_bytes:
            longest = max(map(len, self._head[line.end() :].split(b"\r\n"))) + 2
            if longest > self._limits.field_bytes:
                raise _too_large()
        environ = self.environ
        self.method, self.is_http_1_1 = line[1].decode("ascii"), line[3] == b"1"
        target = environ["RAW_URI"] = self._origin_form(line[2].decode("ascii"))
        path, _, environ["QUERY_STRING"] = target.partition("?")
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        environ["REQUEST_METHOD"] = self.method
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if self.is_http_1_1 else "HTTP/1.0"
        sent = environ.get("HTTP_CONNECTION")
        options = [each.strip() for each in sent.lower().split(",")] if sent else ()
        kept = self.is_http_1_1 or "keep-alive" in options
        # What follows a CONNECT is no request, whatever the answer.
        self.is_persistent = kept and "close" not in options and self.method != "CONNECT"
        environ["wsgi.input"] = self.body = self._make_body()

    def _origin_form(self, target: str) -> str:
        """The target as a path and a query; see RFC 9112, section 3.2, for its forms."""
        if target.startswith("/"):
            return target
        if self.method == ("OPTIONS" if target == "*" else "CONNECT"):
            return target
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise InvalidRequest
        self.environ["HTTP_HOST"] = absolute[1]
        return absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]

    def _make_body(self) -> Body:
        environ, length = self.environ, self.environ.get("CONTENT_LENGTH", "0")
        expected = environ.get("HTTP_EXPECT")
        if expected is not None and expected.lower() != "100-continue":
            raise InvalidRequest("The expectation of the request can't be met.", 417)
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        is_invited = expected is None or not self.is_http_1_1
        if coding is not None:
            if coding.lower() != "chunked" or not self.is_http_1_1:
                raise self._coding_error() or InvalidRequest()
            return ChunkedBody(self._source, is_invited=is_invited)
        if not length.isdecimal():
            raise InvalidRequest
        return Body(self._source, int(length), is_invited=is_invited)

    def _coding_error(self) -> InvalidRequest | None:
        """What to say of a transfer coding that isn't known; None: there is none."""
        codings = self.environ.get("HTTP_TRANSFER_ENCODING", "").lower().split(",")
        if {each.strip() for each in codings} <= {"", "chunked", "identity"}:
            return None
        return InvalidRequest("The transfer coding of the request is not supported.", 501)

    def environ_for_error(self) -> WSGIEnvironment:
        """What is known of a request whose head can't be read to its end:
        enough to find its dialect."""
        path = _PATH.match(self._head)
        return self.environ | {"PATH_INFO": path[1].decode("latin-1") if path else "/"}


def _too_large() -> InvalidRequest:
    return InvalidRequest("The headers of the request are too large.", 431)


def _make_environ_key(name: bytes) -> str:
    """The key of a header in a WSGI environment; "" for a name with an underscore, which an
    application could not tell from the same name with a hyphen."""
    if b"_" in name:
        return ""
    key = name.decode("ascii").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


_environ_key = lru_cache(maxsize=1024)(_make_environ_key)


class Body:
    """The body of a request, as `wsgi.input`: it is received when it is read. A body that ends
    before its length is shorter than it should be; `is_complete` says so."""

    def __init__(self, source: Source, length: int, *, is_invited: bool = True) -> None:
        self._source = source
        self._left = length
        self._is_invited = is_invited
        #: Received, and not read yet.
        self._held = b""
        #: All of it is received, so what follows on the connection is the next request.
        self.is_complete = not length

    def read1(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`, with at most one wait for the client; b"" at the end."""
        if not size:
            return b""
        data = self._held or self._receive()
        if size < 0 or len(data) <= size:
            self._held = b""
            return data
        self._held = data[size:]
        return data[:size]

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or all that there are."""
        first = self.read1(size)
        if not first or len(first) == size or (self.is_complete and not self._held):
            return first
        parts, count = [first], len(first)
        while count != size and (part := self.read1(size - count if size >= 0 else -1)):
            parts.append(part)
            count += len(part)
        return b"".join(parts)

    def readline(self, size: int = -1) -> bytes:
        """The next line with its end, or as much of it as `size` allows."""
        line = b""
        while len(line) != size and (part := self.read1(size - len(line) if size >= 0 else -1)):
            end = part.find(b"\n") + 1
            line += part[:end] if end else part
            if end:
                self._held = part[end:] + self._held
                break
        return line

    def readlines(self, hint: int = -1) -> list[bytes]:
        """All lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _receive(self) -> bytes:
        """What arrives next."""
        if self.is_complete:
            return b""
        data = self._receive_raw()
        self._left -= len(data)
        if self._left < 0:
            self._source.unread(data[self._left :])
            data, self._left = data[: self._left], 0
        self.is_complete = not self._left
        return data

    def _receive_raw(self) -> bytes:
        if not self._is_invited:
            self._is_invited = True
            self._source.invite_body()
        return self._source.receive()


class ChunkedBody(Body):
    """A body in chunks. Reading it raises BodyError if it isn't valid, or ends
    before its last chunk."""

    def __init__(self, source: Source, *, is_invited: bool = True) -> None:
        super().__init__(source, -1, is_invited=is_invited)
        self._pieces: list[bytes] = []
        self._last = b""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """See httptools."""
        self.is_complete = True

    def _receive(self) -> bytes:
        empty_bytes = 0
        while not self.is_complete and not self._pieces:
            data = self._receive_raw()
            if not data or empty_bytes > MAX_HEAD_BYTES:
                raise BodyError("no data in a chunked body")
            self._feed(data)
            empty_bytes += len(data)
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def _feed(self, data: bytes) -> None:
        """Gives the parser what arrived, up to the end of the body. That is an empty line, as
        others in the data may be, so the parser gets no more than one of them at a time."""
        data, start = self._last + data, len(self._last)
        while start < len(data) and not self.is_complete:
            end = data.find(_END, max(0, start - 3)) + len(_END)
            end = end if end >= len(_END) else len(data)
            try:
                self._parser.feed_data(data[start:end])
            except HttpParserError as error:
                raise BodyError("invalid chunks") from error
            start = end
        self._last = data[-3:]
        if start < len(data):
            self._source.unread(data[start:])
