"""One connection: what its parser makes of bytes, and when it may be used again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.errors import ClientGone, UpstreamCut, UpstreamError, UpstreamTimeout
from ollama_proxy.settings.schema import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.connection import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    TICK_S,
    Connection,
    WaitTimer,
)
from ollama_proxy.upstreams.transport.session import Pool

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nbody"


class Rig:
    """A connection and the upstream's end of it."""

    def __init__(self) -> None:
        ours, self.peer = gsocket.socketpair()
        self.connection = Connection(ours, WaitTimer())
        self.call = Call(Timeouts(first_byte_s=2, idle_s=2, total_s=5))

    def ask(self, *, headless: bool = False) -> None:
        """Send a request and take it at the other end."""
        self.connection.send(GET, b"", self.call, chunked=False, headless=headless)
        assert self.peer.recv(1000) == GET

    def head(self, wait_s: float | None = None) -> bool:
        return self.connection.receive_head(self.call, time.monotonic() + 2, wait_s)

    def body(self) -> bytes:
        """The rest of the body."""
        return b"".join(iter(self.read, b""))

    def read(self, wait_s: float | None = None) -> bytes | None:
        return self.connection.receive_body(self.call, time.monotonic() + 2, wait_s)

    def answered(self, data: bytes, *, headless: bool = False, ends: bool = False) -> bytes:
        """The body of this answer."""
        self.ask(headless=headless)
        self.peer.sendall(data)
        if ends:
            self.peer.shutdown(socket.SHUT_WR)
        self.head()
        return self.body()


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig()
    with closing(one.connection), one.peer:
        yield one


@pytest.mark.parametrize("answer", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_framed_answer_leaves_a_connection_that_can_be_used_again(rig: Rig, answer: bytes) -> None:
    for _ in range(3):
        assert rig.answered(answer) == b"body"
        assert rig.connection.reusable
    assert rig.connection.used == 3


@pytest.mark.parametrize("answer", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_bytes_may_be_cut_anywhere(rig: Rig, answer: bytes, size: int) -> None:
    rig.ask()

    def send() -> None:
        for start in range(0, len(answer), size):
            rig.peer.sendall(answer[start : start + size])
            gevent.sleep()

    gevent.spawn(send)
    assert (rig.head(), rig.connection.status) == (True, 200)
    assert rig.body() == b"body"
    assert rig.connection.reusable


def test_answer_without_framing_ends_with_the_connection(rig: Rig) -> None:
    assert rig.answered(UNFRAMED, ends=True) == b"body"
    assert not rig.connection.reusable


@pytest.mark.parametrize("answer", [SIZED[:-2], CHUNKED[:-5], CHUNKED[:-9]])
def test_framed_answer_that_ends_early_is_cut(rig: Rig, answer: bytes) -> None:
    with pytest.raises(UpstreamCut):
        rig.answered(answer, ends=True)
    assert not rig.connection.reusable


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_end_before_the_head_is_cut(rig: Rig, beginning: bytes) -> None:
    with pytest.raises(UpstreamCut):
        rig.answered(beginning, ends=True)
    assert not rig.connection.was_stale


@pytest.mark.parametrize("used", [True, False], ids=["used before", "fresh"])
@pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 "], ids=["silent", "answering"])
def test_only_a_used_connection_that_took_nothing_of_the_request_was_stale(
    rig: Rig, used: bool, reads: bool, says: bytes
) -> None:
    if used:
        rig.answered(SIZED)
    rig.connection.send(GET, b"", rig.call, chunked=False, headless=False)
    if reads:
        rig.peer.recv(1000)
    rig.peer.sendall(says)
    rig.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(UpstreamCut):
        rig.head()
    assert rig.connection.was_stale is (used and not reads and not says)


@pytest.mark.parametrize(
    "answer",
    [
        SIZED.replace(b"200 OK", b"200 OK\r\nConnection: close"),
        SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SIZED + b"x",
        CHUNKED + b"x",
        SIZED + SIZED,
        CHUNKED + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nodd",
    ],
    ids=[
        "close",
        "1.0",
        "a byte behind",
        "a byte behind chunks",
        "a second answer",
        "a second answer behind chunks",
    ],
)
def test_connection_is_not_used_again_after(rig: Rig, answer: bytes) -> None:
    assert rig.answered(answer) == b"body"
    assert not rig.connection.reusable


def test_interim_answers_are_passed_over(rig: Rig) -> None:
    interim = (
        b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    )
    assert rig.answered(interim + SIZED) == b"body"
    assert (rig.connection.status, rig.connection.headers) == (200, [(b"content-length", b"4")])
    assert rig.connection.reusable


def test_trailers_are_no_headers(rig: Rig) -> None:
    assert rig.answered(CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n") == b"body"
    assert rig.connection.headers == [(b"transfer-encoding", b"chunked")]


def test_answer_to_head_ends_with_its_head(rig: Rig) -> None:
    assert rig.answered(SIZED[:-4], headless=True) == b""
    assert rig.connection.complete


@pytest.mark.parametrize(
    "bad",
    [
        b"220 smtp ready\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_bad_http_is_an_error_and_no_cut(rig: Rig, bad: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        rig.answered(bad)
    assert not isinstance(caught.value, UpstreamCut | UpstreamTimeout)
    assert not rig.connection.reusable


def test_too_many_headers_are_an_error(rig: Rig) -> None:
    with pytest.raises(UpstreamError):
        rig.answered(
            b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * (MAX_HEADERS + 1) + b"Content-Length: 0\r\n\r\n"
        )


def test_waiting_for_a_while_says_that_nothing_came(rig: Rig) -> None:
    rig.ask()
    assert rig.head(0.1) is False
    rig.peer.sendall(SIZED[:-4])
    assert rig.head(1) is True
    assert rig.read(0.1) is None
    rig.peer.sendall(b"body")
    assert rig.read(1) == b"body"
    assert rig.read(1) == b""


@pytest.mark.parametrize(
    ("limits", "first_byte_s"),
    [(Timeouts(first_byte_s=0.2), 0.2), (Timeouts(total_s=0.2), 9)],
    ids=["own", "total"],
)
def test_every_limit_ends_the_wait_for_a_head(
    rig: Rig, limits: Timeouts, first_byte_s: float
) -> None:
    rig.call = Call(limits)
    rig.ask()
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        rig.connection.receive_head(rig.call, began + first_byte_s, None)
    assert 0.1 < time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("limits", "idle_s", "wait_s"),
    [
        (Timeouts(idle_s=0.2), 0.2, None),
        (Timeouts(total_s=0.2), 9, None),
        (Timeouts(total_s=0.2), 9, 9),
    ],
    ids=["idle", "total", "total behind a heartbeat"],
)
def test_every_limit_ends_the_wait_for_a_body(
    rig: Rig, limits: Timeouts, idle_s: float, wait_s: float | None
) -> None:
    rig.call = Call(limits)
    rig.ask()
    rig.peer.sendall(SIZED[:-4])
    rig.head()
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        rig.connection.receive_body(rig.call, began + idle_s, wait_s)
    assert 0.1 < time.monotonic() - began < 4


def test_abort_wakes_whoever_waits(rig: Rig) -> None:
    rig.ask()
    rig.call.attach(rig.connection.abort)
    rig.call.leave()
    began = time.monotonic()
    with pytest.raises(ClientGone):
        rig.head()
    assert time.monotonic() - began < 15


def test_input_on_an_idle_connection_is_seen(rig: Rig) -> None:
    assert rig.answered(SIZED) == b"body"
    assert not rig.connection.has_input()
    rig.peer.sendall(b"x")
    assert rig.connection.has_input()


def test_end_of_an_idle_connection_is_seen(rig: Rig) -> None:
    assert rig.answered(SIZED) == b"body"
    rig.peer.close()
    assert rig.connection.has_input()


def test_streamed_request_stops_at_an_early_answer(rig: Rig) -> None:
    rig.peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    taken = []

    def parts() -> Iterator[bytes]:
        for number in range(10):
            taken.append(number)
            yield b"x" * 10

    rig.connection.send(GET, parts(), rig.call, chunked=True, headless=False)
    assert taken == [0]
    assert (rig.head(), rig.connection.status, rig.body()) == (True, 413, b"no")
    assert not rig.connection.reusable


def test_chunked_request_is_framed_and_ended(rig: Rig) -> None:
    rig.connection.send(GET, iter([b"ab", b"", b"cde"]), rig.call, chunked=True, headless=False)
    assert rig.peer.recv(1000) == GET + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"


def test_sized_request_is_sent_as_it_is(rig: Rig) -> None:
    rig.connection.send(GET, iter([b"ab", b"cde"]), rig.call, chunked=False, headless=False)
    assert rig.peer.recv(1000) == GET + b"abcde"


def test_upstream_that_takes_nothing_is_given_up(rig: Rig) -> None:
    rig.call = Call(Timeouts(idle_s=0.6, total_s=5))
    with pytest.raises((UpstreamTimeout, TimeoutError)):
        rig.connection.send(GET, b"x" * 20_000_000, rig.call, chunked=False, headless=False)


@pytest.fixture
def silent() -> Iterator[object]:
    """A watcher of a socket on which nothing ever comes."""
    ours, theirs = gsocket.socketpair()
    with ours, theirs:
        yield gevent.get_hub().loop.io(ours.fileno(), 1)


def wait_shortly(wait_timer: WaitTimer, silent: object) -> bool:
    return wait_timer.wait(silent, time.monotonic() + 0.01)


def is_over(greenlet: gevent.Greenlet[..., None] | None) -> bool:
    """Whether it comes to its end."""
    assert greenlet is not None
    greenlet.join(timeout=5)
    return bool(greenlet.dead)


def test_a_closed_alarm_lets_its_greenlet_go(silent: object) -> None:
    wait_timer = WaitTimer()
    assert not wait_shortly(wait_timer, silent)
    greenlet = wait_timer._greenlet
    assert greenlet is not None and not greenlet.dead
    wait_timer.close()
    assert is_over(greenlet)


def test_a_wait_that_outlives_the_end_of_its_alarm_still_ends(silent: object) -> None:
    wait_timer = WaitTimer()
    waiting = gevent.spawn(wait_timer.wait, silent, time.monotonic() + 2 * TICK_S)
    gevent.sleep(0)
    first = wait_timer._greenlet
    wait_timer.close()
    assert waiting.get(timeout=5) is False
    assert is_over(first)
    later = gevent.spawn(wait_shortly, wait_timer, silent)
    gevent.sleep(0)
    second = wait_timer._greenlet
    assert later.get(timeout=5) is False
    assert is_over(second)


def test_a_pool_closes_its_own_alarm_and_no_other(silent: object) -> None:
    shared, own = WaitTimer(), Pool("http://127.0.0.1:1", None)
    assert not wait_shortly(shared, silent)
    assert not wait_shortly(own._wait_timer, silent)
    greenlet, others = own._wait_timer._greenlet, shared._greenlet
    own.close()
    Pool("http://127.0.0.1:1", None, wait_timer=shared).close()
    assert is_over(greenlet)
    assert others is not None and not others.dead
    shared.close()
    assert is_over(others)
