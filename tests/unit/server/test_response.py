"""Responses: their framing, and what of an application's head goes to the client."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ollama_proxy.server.incoming import HeadLimits, IncomingRequest
from ollama_proxy.server.response import Response
from tests.rig.http_cases import get, post
from tests.rig.tables import each_row
from tests.unit.server.test_incoming import Arriving

TYPE = ("Content-Type", "text/plain")


class Sent:
    """A response to a request, and every piece that was sent of it."""

    def __init__(self, request: bytes = get(), *, is_last: bool = False) -> None:
        arriving = Arriving(request)
        incoming = IncomingRequest({}, HeadLimits(8190, 8190, 100), arriving)
        rest = incoming.feed(arriving.receive())
        assert rest is not None
        arriving.unread(rest)
        self.pieces: list[bytes] = []
        self.response = Response(incoming, self.pieces.append, is_last=is_last)

    def respond(self, status: str, headers: list[tuple[str, str]], *body: bytes) -> Sent:
        write = self.response.start_response(status, headers)
        for piece in body:
            write(piece)
        self.response.finish()
        return self

    @property
    def head(self) -> list[str]:
        return b"".join(self.pieces).partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces).partition(b"\r\n\r\n")[2]


def test_head_and_body_are_one_piece() -> None:
    sent = Sent().respond("200 OK", [TYPE, ("Content-Length", "5")], b"hello")
    assert len(sent.pieces) == 1
    date = next(line for line in sent.head if line.startswith("Date: "))
    assert re.fullmatch(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert [line for line in sent.head if line != date] == [
        "HTTP/1.1 200 OK",
        "Server: gunicorn",
        "Connection: keep-alive",
        "Content-Type: text/plain",
        "Content-Length: 5",
    ]
    assert sent.body == b"hello"


def test_a_chunk_is_one_piece_with_its_size_and_end() -> None:
    sent = Sent().respond("200 OK", [TYPE], b"hello", b"", b"w" * 17)
    assert sent.pieces[0].endswith(b"\r\n\r\n5\r\nhello\r\n")
    assert sent.pieces[1:] == [b"11\r\n" + b"w" * 17 + b"\r\n", b"0\r\n\r\n"]
    assert "Transfer-Encoding: chunked" in sent.head


def test_response_without_a_piece_has_its_head_and_end() -> None:
    assert Sent().respond("200 OK", [TYPE]).body == b"0\r\n\r\n"
    assert Sent().respond("200 OK", [("Content-Length", "0")]).body == b""


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_stream_to_an_old_client_ends_with_its_connection(version: bytes) -> None:
    sent = Sent(get(b"/a", b"Connection: keep-alive", version=version)).respond(
        "200 OK", [TYPE], b"hello"
    )
    is_old = version == b"1.0"
    assert (sent.response.is_last, "Connection: close" in sent.head) == (is_old, is_old)
    assert ("Transfer-Encoding: chunked" not in sent.head, sent.body == b"hello") == (
        is_old,
        is_old,
    )


@each_row(
    ("method", "status", "length"),
    [
        (b"HEAD", "200 OK", ["Content-Length: 5"]),
        (b"GET", "304 Not Modified", ["Content-Length: 5"]),
        (b"GET", "204 No Content", []),
    ],
)
@each_row("version", [b"1.0", b"1.1"])
def test_responses_without_a_body(
    method: bytes, status: str, length: list[str], version: bytes
) -> None:
    request = get(b"/a", b"Connection: keep-alive", version=version).replace(b"GET", method)
    sent = Sent(request).respond(status, [TYPE, ("Content-Length", "5")], b"hello")
    assert (sent.body, sent.response.is_last) == (b"", False)
    assert [line for line in sent.head if "Length" in line or "Transfer" in line] == length
    assert Sent(request).respond(status, [TYPE], b"hello").body == b""


def test_body_is_never_longer_than_its_length_and_a_shorter_one_ends_the_connection() -> None:
    long = Sent().respond("200 OK", [("Content-Length", "5")], b"hel", b"lo!", b"more")
    assert (long.body, long.response.is_last) == (b"hello", False)
    short = Sent().respond("200 OK", [("Content-Length", "5")], b"hel")
    assert (short.body, short.response.is_last) == (b"hel", True)


def test_last_response_says_so() -> None:
    assert "Connection: close" in Sent(is_last=True).respond("200 OK", [TYPE], b"x").head


def test_response_to_a_client_that_closes_is_the_last_one() -> None:
    sent = Sent(get(b"/a", b"Connection: close")).respond("200 OK", [TYPE], b"x")
    assert (sent.response.is_last, "Connection: close" in sent.head) == (True, True)


def test_response_to_an_unread_body_is_the_last_one() -> None:
    sent = Sent(post(b"hello", b"Content-Length: 5")).respond("200 OK", [TYPE], b"x")
    assert (sent.response.is_last, "Connection: close" in sent.head) == (True, True)


def test_headers_of_the_connection_are_not_the_applications() -> None:
    headers = [
        ("Connection", "upgrade"),
        ("Keep-Alive", "x"),
        ("Transfer-Encoding", "gzip"),
        ("Upgrade", "h2c"),
        TYPE,
    ]
    sent = Sent().respond("200 OK", headers, b"x")
    assert sent.head[3:] == [
        "Connection: keep-alive",
        "Transfer-Encoding: chunked",
        "Content-Type: text/plain",
    ]


def test_protocol_to_use_instead_is_the_applications() -> None:
    sent = Sent().respond(
        "426 UPGRADE REQUIRED", [("Connection", "x"), ("Upgrade", "HTTP/1.1"), TYPE], b"x"
    )
    assert {"Connection: keep-alive, Upgrade", "Upgrade: HTTP/1.1"} <= {*sent.head}
    assert "Connection: x" not in sent.head


@each_row(
    ("status", "header"),
    [
        ("200 OK\r\nX: y", TYPE),
        ("20 OK", TYPE),
        ("OK", TYPE),
        ("200 OK", ("X", "a\r\nY: b")),
        ("200 OK", ("X", "a\nY: b")),
        ("200 OK", ("X", "a\rY: b")),
        ("200 OK", ("X", "a\0b")),
        ("200 OK", ("X: y\r\nZ", "a")),
        ("200 OK", ("X y", "a")),
        ("200 OK", ("", "a")),
        ("200 OK", ("X", "\u20ac")),
    ],
)
def test_head_that_is_not_valid_is_not_sent(status: str, header: tuple[str, str]) -> None:
    sent = Sent()
    with pytest.raises(ValueError):
        sent.respond(status, [header], b"x")
    assert (sent.pieces, sent.response.is_head_sent) == ([], False)


def test_start_response_may_be_repeated_only_for_an_error_before_the_head() -> None:
    sent = Sent()
    sent.response.start_response("200 OK", [TYPE])
    with pytest.raises(AssertionError):
        sent.response.start_response("200 OK", [TYPE])
    failure = RuntimeError("x")
    info: Any = (RuntimeError, failure, None)
    write = sent.response.start_response("500 Internal Server Error", [TYPE], info)
    write(b"x")
    assert sent.head[0] == "HTTP/1.1 500 Internal Server Error"
    with pytest.raises(RuntimeError):
        sent.response.start_response("500 Internal Server Error", [TYPE], info)
