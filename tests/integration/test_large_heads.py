"""Heads of requests: a limit for all of it, and work that grows with its size, however it
is cut into segments."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.rig.calls import TOKEN
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, raw
from tests.rig.nginx import Nginx

KIB = 1024
LIMIT = 32 * KIB
#: One `X-n:` line after the other.
LINE_BYTES = 4 * KIB


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """Of one worker, whose CPU time is that of the connection under test."""
    config = {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": shared_upstream.url}}
    with Gateway(config, workers=1) as running:
        yield running


def sized_head(size: int, path: str = "/api/version", *more: bytes) -> bytes:
    """A valid head of exactly this size, in lines that are within their own limit."""
    usual = (b"Host: gw", b"Connection: close", b"Authorization: Bearer " + TOKEN.encode(), *more)
    head = b"\r\n".join([b"GET %b HTTP/1.1" % path.encode(), *usual, b""])
    number = 0
    while (left := size - len(head) - 2) > 0:
        number += 1
        taken = left if left <= LINE_BYTES + 100 else LINE_BYTES
        head += (b"X-%d: " % number).ljust(taken - 2, b"x") + b"\r\n"
    assert len(head) == size - 2
    return head + b"\r\n"


def answer_to(port: int, data: bytes, step: int = 0) -> Answer:
    """The answer to these bytes, sent at once or `step` at a time; the rest stays unsent
    once nothing is taken."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            for start in range(0, len(data), step or len(data)):
                sock.sendall(data[start : start + (step or len(data))])
        stream = Stream(sock)
        return Answer(stream.status, stream.headers, stream.read_all(), stream.complete)


@pytest.mark.parametrize("step", [0, 1000, 7], ids=["at once", "1000 at a time", "7 at a time"])
@pytest.mark.parametrize(
    ("size", "status"), [(LIMIT, 200), (LIMIT + 1, 431), (LIMIT + 100, 431), (20 * LIMIT, 431)]
)
def test_whole_head_has_a_limit(gateway: Gateway, size: int, status: int, step: int) -> None:
    answer = answer_to(gateway.port, sized_head(size), step)
    assert answer.status == status
    if status == 431:
        assert assert_error(answer, "native", 431) == "The headers of the request are too large."
        assert answer.headers.get("connection") == "close"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_error_has_the_form_of_the_path(gateway: Gateway, path: str) -> None:
    assert_error(answer_to(gateway.port, sized_head(LIMIT + 1, path)), dialect_of(path), 431)


def test_head_without_an_end_is_refused_at_the_limit(gateway: Gateway) -> None:
    endless = sized_head(LIMIT + 100)[:-2]
    assert answer_to(gateway.port, endless).status == 431


def test_nginx_has_about_the_same_limit(gateway: Gateway, nginx: Nginx) -> None:
    assert answer_to(nginx.port, sized_head(30 * KIB)).status == 200
    for size in (34 * KIB, 40 * KIB, 300 * KIB):
        assert_error(answer_to(nginx.port, sized_head(size, "/v1/models")), "openai", 431)


def test_what_follows_a_head_is_the_next_request(gateway: Gateway) -> None:
    """Heads in advance are no part of the first one's size."""
    one = sized_head(20 * KIB, "/livez").replace(b"Connection: close\r\n", b"")
    answers = raw(gateway.port, one * 4 + sized_head(LIMIT, "/livez"))
    assert answers.count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /livez HTTP/1.1\nHost: gw\n\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: gw\nX: y\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: gw\r\nX:" + b"y" * 5000 + b"\n", 400),
        (b"GET /" + b"x" * 9000, 414),
        (b"\r\nGET /" + b"x" * 9000, 414),
        (b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: gw\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
    ],
    ids=[
        "bare LF",
        "one bare LF",
        "late LF",
        "line",
        "line after an empty one",
        "two empty lines",
        "TLS",
    ],
)
@pytest.mark.parametrize("step", [0, 1], ids=["at once", "byte for byte"])
def test_what_can_not_become_a_head_is_refused_at_once(
    gateway: Gateway, data: bytes, status: int, step: int
) -> None:
    assert answer_to(gateway.port, data, step).status == status


@pytest.mark.parametrize("cut", [1, 2, 3, 5], ids=lambda cut: f"{cut} at a time")
def test_end_of_a_head_may_be_cut_anywhere(gateway: Gateway, cut: int) -> None:
    for head in (sized_head(300), b"\r\n" + sized_head(301)):
        assert answer_to(gateway.port, head, cut).status == 200
