"""Requests as they come in on a connection: each rule of HTTP/1.1, with every cut of
the bytes that matters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_proxy.server.incoming import (
    MAX_HEAD_BYTES,
    BodyError,
    ChunkedBody,
    HeadLimits,
    IncomingRequest,
    InvalidRequest,
)
from tests.rig.http_cases import INVALID_BODIES, REFUSED, VALID, chunked, get, post
from tests.rig.tables import check_rows, each_row

LIMITS = HeadLimits(8190, 8190, 100)
STEPS = [1, 2, 3, 7, 100_000]


class Arriving:
    """The bytes of a connection, `step` at a time."""

    def __init__(self, data: bytes, step: int = 100_000) -> None:
        self._data = data
        self._step = step
        self.invitations = 0

    def receive(self) -> bytes:
        data, self._data = self._data[: self._step], self._data[self._step :]
        return data

    def unread(self, data: bytes) -> None:
        self._data = data + self._data

    def invite_body(self) -> None:
        self.invitations += 1

    def next_request(self) -> IncomingRequest | None:
        request = IncomingRequest({}, LIMITS, self)
        while data := self.receive():
            rest = request.feed(data)
            if rest is not None:
                self.unread(rest)
                return request
        return None


def requests(arriving: Arriving) -> Iterator[IncomingRequest]:
    """The requests of a connection, each to be read before the next one is asked for."""
    while (request := arriving.next_request()) is not None:
        yield request
        if not request.is_persistent:
            break


def described(request: IncomingRequest) -> str:
    words = [
        request.environ["REQUEST_METHOD"],
        request.environ["RAW_URI"],
        request.body.read().decode(),
    ]
    assert request.body.is_complete
    return " ".join(filter(None, words))


@each_row("step", STEPS)
def test_valid_requests(step: int) -> None:
    def check(name: str) -> None:
        data, expected = VALID[name]
        assert [described(request) for request in requests(Arriving(data, step))] == expected

    check_rows([(name,) for name in VALID], check)


@each_row("step", STEPS)
def test_invalid_heads(step: int) -> None:
    def check(name: str) -> None:
        data, status = REFUSED[name]
        with pytest.raises(InvalidRequest) as caught:
            Arriving(data, step).next_request()
        assert caught.value.status == status

    check_rows([(name,) for name in REFUSED], check)


@each_row("step", STEPS)
def test_invalid_bodies(step: int) -> None:
    def check(name: str) -> None:
        request = Arriving(INVALID_BODIES[name], step).next_request()
        assert request is not None
        with pytest.raises(BodyError):
            request.body.read()
        assert not request.body.is_complete

    check_rows([(name,) for name in INVALID_BODIES], check)


def environ_of(data: bytes) -> dict[str, object]:
    request = Arriving(data).next_request()
    assert request is not None
    return request.environ


def test_environ() -> None:
    environ = environ_of(
        get(b"/a%2fb%C3%A4?c=%64", b"X-Y: 1", b"x-y: 2", b"X_Z: 3", b"Content-Type: a/b")
    )
    del environ["wsgi.input"]
    assert environ == {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/a%2fb%C3%A4?c=%64",
        "PATH_INFO": "/a/b\xc3\xa4",
        "QUERY_STRING": "c=%64",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "gw",
        "HTTP_X_Y": "1,2",
        "CONTENT_TYPE": "a/b",
    }


def test_host_of_an_absolute_form_replaces_the_header() -> None:
    environ = environ_of(get(b"http://other:81/a?b"))
    assert (environ["HTTP_HOST"], environ["PATH_INFO"], environ["RAW_URI"]) == (
        "other:81",
        "/a",
        "/a?b",
    )


@each_row(
    ("data", "path"),
    [
        (get(b"/v1/messages?x", b"X : y"), "/v1/messages"),
        (get(b"http://other/v1/models", b"X : y"), "/v1/models"),
        (b"FOO /v1/models HTTP/1.1\r\n\r\n", "/v1/models"),
        (get(b"/v1/" + b"x" * 9000), "/"),
        (b"\x16\x03\x01", "/"),
    ],
)
def test_path_of_an_invalid_head(data: bytes, path: str) -> None:
    request = IncomingRequest({}, LIMITS, Arriving(b""))
    with pytest.raises(InvalidRequest):
        request.feed(data)
    assert request.environ_for_error()["PATH_INFO"] == path


@each_row(
    "beginning",
    [b"GET /a HTTP/1.1\n", b"FOO", b"\x16\x03\x01", get()[:-2] + b"X : ", b"\r\n\r\n"],
)
@each_row("step", [1, 100_000])
def test_what_can_not_become_a_head_is_refused_at_once(beginning: bytes, step: int) -> None:
    with pytest.raises(InvalidRequest):
        Arriving(beginning, step).next_request()


@pytest.mark.parametrize("step", [1, 100_000])
def test_head_is_not_read_beyond_its_limit(step: int) -> None:
    request = IncomingRequest({}, LIMITS, Arriving(b""))
    head = b"GET / HTTP/1.1\r\n" + b"X: %b\r\n" % (b"y" * 900) * 50
    with pytest.raises(InvalidRequest) as caught:
        for number in range(0, MAX_HEAD_BYTES + 1, step):
            assert request.feed(head[number : number + step]) is None
    assert caught.value.status == 431


# Bodies.


def body_of(data: bytes, step: int = 100_000) -> tuple[IncomingRequest, Arriving]:
    arriving = Arriving(data, step)
    request = arriving.next_request()
    assert request is not None
    return request, arriving


FRAMINGS = {
    "sized": post(b"one\ntwo\n\nthree", b"Content-Length: 14"),
    "chunked": chunked(b"5\r\none\nt\r\n9\r\nwo\n\nthree\r\n0\r\n\r\n"),
}


@each_row("step", [1, 4, 100_000])
@each_row("framing", FRAMINGS)
def test_ways_to_read_a_body(framing: str, step: int) -> None:
    data = FRAMINGS[framing]
    body = body_of(data, step)[0].body
    assert [body.read(2), body.read(0), body.read(5), body.read(), body.read(), body.read1()] == [
        *(b"on", b"", b"e\ntwo", b"\n\nthree", b"", b"")
    ]
    assert list(body_of(data, step)[0].body) == [b"one\n", b"two\n", b"\n", b"three"]
    body = body_of(data, step)[0].body
    assert [body.readline(2), body.readline(), body.read1(1), body.readlines()] == [
        *(b"on", b"e\n", b"t", [b"wo\n", b"\n", b"three"])
    ]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_read1_takes_what_has_arrived(framing: str) -> None:
    body = body_of(FRAMINGS[framing] + get(), 30)[0].body
    pieces = list(iter(body.read1, b""))
    assert b"".join(pieces) == b"one\ntwo\n\nthree"


def test_reading_nothing_waits_for_nothing() -> None:
    request, arriving = body_of(post(b"", b"Content-Length: 5", b"Expect: 100-continue"))
    assert [request.body.read(0), request.body.read1(0), request.body.readline(0)] == [
        b"",
        b"",
        b"",
    ]
    assert arriving.invitations == 0


def test_body_that_ends_before_its_length_is_shorter() -> None:
    body = body_of(post(b"hel", b"Content-Length: 5"))[0].body
    assert (body.read(), body.is_complete) == (b"hel", False)


def test_unread_body_is_not_complete() -> None:
    for data in FRAMINGS.values():
        assert not body_of(data)[0].body.is_complete
    assert body_of(post(b""))[0].body.is_complete


@pytest.mark.parametrize("headers", [(b"Content-Length: 5",), (b"Transfer-Encoding: chunked",)])
def test_body_is_invited_when_it_is_read_and_once(headers: tuple[bytes, ...]) -> None:
    request, arriving = body_of(post(b"", *headers, b"Expect: 100-continue"))
    assert arriving.invitations == 0
    arriving.unread(b"5\r\nhello\r\n0\r\n\r\n" if b"chunked" in headers[0] else b"hello")
    assert (request.body.read(), arriving.invitations) == (b"hello", 1)


def test_body_without_an_expectation_is_not_invited() -> None:
    for data in (
        *FRAMINGS.values(),
        post(b"hello", b"Content-Length: 5", b"Expect: 100-continue", version=b"1.0"),
    ):
        request, arriving = body_of(data)
        request.body.read()
        assert arriving.invitations == 0


@pytest.mark.parametrize(
    "endless", [b"5;" + b"a" * 1000, b"0\r\n" + b"X: y\r\n" * 1000], ids=["extension", "trailers"]
)
def test_chunked_body_without_data_is_not_read_for_ever(endless: bytes) -> None:
    arriving = Arriving(endless + endless[-6:] * 100_000, 1000)
    with pytest.raises(BodyError):
        ChunkedBody(arriving).read()
    left = 0
    while data := arriving.receive():
        left += len(data)
    assert left > 6 * 90_000
