"""A response on its way to the client: `start_response` of WSGI, and the framing of HTTP/1.1.
Whatever is written at a time, head and body or a chunk with its size and end, goes to the
connection in one piece."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from ollama_proxy.server.incoming import IncomingRequest

#: Of the connection, and so no business of an application's; see RFC 9110, section 7.6.1.
HOP_BY_HOP = frozenset(
    (
        "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
        "transfer-encoding upgrade"
    ).split()
)

#: The only status whose `Upgrade` is the application's: it says which protocol to use instead.
UPGRADE_REQUIRED = 426

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS = re.compile(r"([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?")

#: What the lines of a head may consist of, see RFC 9110, section 5.5.
_LINE_BYTES = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

_LAST_CHUNK = b"0\r\n\r\n"


class Response:
    """The response to a request; `send` writes bytes to the connection. `is_last`: no
    other one follows on it."""

    def __init__(
        self, request: IncomingRequest, send: Callable[[bytes], None], *, is_last: bool
    ) -> None:
        self.is_last = is_last
        self.is_head_sent = False
        self._request = request
        self._send = send
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._is_chunked = False
        self._has_body = True
        #: Bytes that its length promises and that have not been written; None: it has no length.
        self._left: int | None = None

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], None]:
        """See PEP 3333."""
        if exc_info is not None and self.is_head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._status:
            raise AssertionError("the response has been started already")
        self._status, self._headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Sends a piece of the body, the first one together with the head."""
        parts = [] if self.is_head_sent else [self._make_head()]
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if data and self._has_body:
            parts += [b"%x\r\n" % len(data), data, b"\r\n"] if self._is_chunked else [data]
        if parts:
            self.is_head_sent = True
            self._send(parts[0] if len(parts) == 1 else b"".join(parts))

    def finish(self) -> None:
        """Sends what is left: the head of a response without a body, the end of one in chunks."""
        end = b"" if self.is_head_sent else self._make_head()
        self.is_head_sent = True
        if self._is_chunked:
            end += _LAST_CHUNK
        if end:
            self._send(end)
        if self._left and self._has_body:
            # Only the end of the connection tells the client that there is no more.
            self.is_last = True

    def _make_head(self) -> bytes:
        code, line = _status_line(self._status)
        is_bodiless = code < 200 or code in (204, 304)
        self._has_body = not is_bodiless and self._request.method != "HEAD"
        fields, length = self._select_fields(code, has_length=code == 304 or not is_bodiless)
        if self._has_body:
            self._left = length
            self._is_chunked = length is None and self._request.is_http_1_1
        is_endless = self._has_body and length is None and not self._is_chunked
        if is_endless or not self._request.is_persistent or not self._request.body.is_complete:
            self.is_last = True
        return self._encode_head(line, fields, ", Upgrade" if code == UPGRADE_REQUIRED else "")

    def _select_fields(self, code: int, *, has_length: bool) -> tuple[list[str], int | None]:
        """The application's headers that go to the client, and the length among them."""
        fields, length = [], None
        for name, value in self._headers:
            lower = _lower_name(name)
            if lower == "content-length":
                length = int(value)
                if not has_length:
                    continue
            elif lower in HOP_BY_HOP and not (lower == "upgrade" and code == UPGRADE_REQUIRED):
                continue
            fields.append(f"{name}: {value}\r\n")
        return fields, length

    def _encode_head(self, line: str, fields: list[str], options: str) -> bytes:
        """The head; `options`: further ones for its `Connection`."""
        option = ("close" if self.is_last else "keep-alive") + options
        coding = "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""
        date = _http_date(int(time.time()))
        text = f"{line}Server: gunicorn\r\nDate: {date}\r\nConnection: {option}\r\n{coding}{''.join(fields)}\r\n"
        head = text.encode("latin-1")
        if head.translate(None, _LINE_BYTES) != b"\r\n" * (len(fields) + 5 + self._is_chunked):
            raise ValueError("a header has a character that no header may have")
        return head


@lru_cache(maxsize=256)
def _status_line(status: str) -> tuple[int, str]:
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ValueError("not a status")
    return int(match[1]), f"HTTP/1.1 {status}\r\n"


@lru_cache(maxsize=1024)
def _lower_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("not the name of a header")
    return name.lower()


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
