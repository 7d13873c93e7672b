"""Requests as they come in on a client's connection: gunicorn's parser with a limit for the whole head, in time that is
linear in its size; with turns for other connections while one client sends; and with the state of the body."""

from __future__ import annotations

from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import IterUnreader, SocketUnreader

from ollama_proxy.upstreams import yield_to_loop

#: Largest head of a request, from its first line to the empty one; also largest trailer of a chunked body.
MAX_HEAD_BYTES = 32 * 1024

#: Other connections get a turn after so many bytes from one client. As chunks of one byte they take about 10 ms.
TURN_BYTES = 16 * 1024

_END = b"\r\n\r\n"


class ClientReader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """The bytes of a client's connection."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._since_turn = 0

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes. A client that never pauses would leave no turn for other connections."""
        data: bytes = super().chunk(size_hint)
        self._since_turn += len(data)
        if self._since_turn >= TURN_BYTES:
            self._since_turn = 0
            yield_to_loop()
        return data

    def read_head(self, max_line_bytes: int) -> bytes:
        """The next head; what follows it stays here. Without the empty line at its end if the connection ends before,
        if no valid head can begin like this, or if it is larger than MAX_HEAD_BYTES."""
        head = bytearray()
        while piece := self.read():
            known = len(head)
            head += piece
            if (end := head.find(_END, max(0, known - 3))) >= 0:
                end += len(_END)
                self.unread(head[end:])
                return bytes(head[:end])
            has_bare_newline = piece.count(b"\n") != head.count(b"\r\n", max(0, known - 1))
            # The first line is too long already; an empty one may precede it.
            most = max_line_bytes + 4
            is_endless = len(head) > most and head.find(b"\r\n", 2, most) < 0
            if has_bare_newline or len(head) > MAX_HEAD_BYTES or is_endless:
                break
        return bytes(head)


class ClientRequest(Request):  # type: ignore[misc]
    """A request, with the state of its body."""

    def parse(self, unreader: ClientReader) -> bytes:
        """Reads the head. Raises LimitRequestHeaders if it is too large, and gunicorn's other errors."""
        self.max_buffer_headers = MAX_HEAD_BYTES
        head = unreader.read_head(self.limit_request_line)
        if len(head) > MAX_HEAD_BYTES:
            # The path decides on the form of the error.
            self.parse_request_line(self.read_line(unreader, bytearray(head), self.limit_request_line)[0])
            raise LimitRequestHeaders("the whole head")
        rest: bytes = super().parse(IterUnreader([head]))
        return rest

    @property
    def has_unread_body(self) -> bool:
        """Whether some of its body may still be on its way, so that nobody knows where the next request begins."""
        reader = self.body.reader
        if isinstance(reader, LengthReader):
            return bool(self.body.failed or reader.length > 0)
        return bool(self.body.failed or reader.parser is not None)

    def should_close(self) -> bool:
        """Whether it is the last one on its connection; asked when the head of the response is written, and later."""
        if self.has_unread_body:
            self.force_close()
        return bool(super().should_close())


class ClientRequests(RequestParser):  # type: ignore[misc]
    """The requests of one connection."""

    mesg_class = ClientRequest

    def __init__(self, cfg: Any, client: Any, address: Any) -> None:
        super().__init__(cfg, client, address)
        self.unreader = ClientReader(client)
