"""A client's connection: bytes in and out, requests one after the other, and how
slow a client may be."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from ollama_proxy.server.connection import CONNECTION_KEY, Connection
from ollama_proxy.server.incoming import HeadLimits, InvalidRequest
from tests.rig.clock import ManualClock
from tests.rig.deadline import wait_until
from tests.rig.http_cases import chunked, get, post

LIMITS = HeadLimits(8190, 8190, 100)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and its client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 5)
        ours, _ = listener.accept()
    ours.settimeout(5)
    with ours, client:
        yield Connection(ours, {"REMOTE_ADDR": "::1"}), client


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["PATH_INFO"].encode() + b" " + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def test_requests_of_a_connection_follow_each_other(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    client.sendall(
        post(b"hello", b"Content-Length: 5") + get(b"/a") + get(b"/b", b"Connection: close")
    )
    client.shutdown(socket.SHUT_WR)
    environs = []
    while (request := connection.read_request(LIMITS)) is not None:
        environs.append(request.environ)
        connection.respond(request, echo, is_last=False)
    assert len({id(each) for each in environs}) == 3
    assert {(each["REMOTE_ADDR"], each[CONNECTION_KEY]) for each in environs} == {
        ("::1", connection)
    }
    connection.close()
    received = b"".join(iter(lambda: client.recv(65536), b""))
    assert [line.partition(b"\r\n")[0] for line in received.split(b"\r\n\r\n")[1:]] == [
        b"/p helloHTTP/1.1 200 OK",
        b"/a HTTP/1.1 200 OK",
        b"/b ",
    ]


def test_connection_that_waits_holds_nothing_of_its_last_request(
    pair: tuple[Connection, socket.socket],
) -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    def holding(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["held"] = Held()
        held.append(weakref.ref(environ["held"]))
        return echo(environ, start_response)

    def serve_next(connection: Connection) -> None:
        request = connection.read_request(LIMITS)
        assert request is not None
        connection.respond(request, holding, is_last=False)

    connection, client = pair
    client.sendall(post(b"hello", b"Content-Length: 5") + chunked(b"5\r\nhello\r\n0\r\n\r\n"))
    gc.disable()  # nothing has to be collected
    try:
        serve_next(connection)
        serve_next(connection)
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()


def test_body_is_not_invited_once_its_response_has_begun(
    pair: tuple[Connection, socket.socket],
) -> None:
    def hasty(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"first"
        yield environ["wsgi.input"].read()

    connection, client = pair
    client.sendall(post(b"", b"Content-Length: 5", b"Expect: 100-continue"))
    request = connection.read_request(LIMITS)
    assert request is not None
    serving = threading.Thread(
        target=connection.respond, args=(request, hasty), kwargs={"is_last": False}
    )
    serving.start()
    received = client.recv(1000)
    client.sendall(b"hello")
    serving.join(5)
    connection.close()
    received += b"".join(iter(lambda: client.recv(1000), b""))
    assert b"100 Continue" not in received
    assert received.endswith(b"5\r\nfirst\r\n5\r\nhello\r\n0\r\n\r\n")


def test_connection_that_ends_in_a_head_has_no_further_request(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    client.sendall(get()[:-5])
    client.shutdown(socket.SHUT_WR)
    assert connection.read_request(LIMITS) is None


def test_what_is_known_of_an_invalid_request(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    client.sendall(get(b"/v1/models", b"X : y"))
    with pytest.raises(InvalidRequest):
        connection.read_request(LIMITS)
    assert connection.request is not None
    assert connection.request.environ_for_error()["PATH_INFO"] == "/v1/models"


@pytest.mark.parametrize("sends_at_once", [True, False])
def test_body_is_invited_if_its_client_waits_for_that(
    pair: tuple[Connection, socket.socket], sends_at_once: bool
) -> None:
    connection, client = pair
    head = post(b"", b"Content-Length: 5", b"Expect: 100-continue")
    client.sendall(head + b"hello" * sends_at_once)
    request = connection.read_request(LIMITS)
    assert request is not None
    reader = threading.Thread(target=request.body.read)
    reader.start()
    if not sends_at_once:
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
    reader.join(5)
    assert request.body.is_complete
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_end_of_the_pieces_is_told_whatever_happens(pair: tuple[Connection, socket.socket]) -> None:
    class Pieces:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise RuntimeError

        def close(self) -> None:
            Pieces.closed += 1

    def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Pieces()

    connection, client = pair
    client.sendall(get())
    request = connection.read_request(LIMITS)
    assert request is not None
    with pytest.raises(RuntimeError):
        connection.respond(request, failing, is_last=False)
    assert Pieces.closed == 1
    assert connection.response is not None and connection.response.is_head_sent


# Clients that read slowly.


class Sending:
    """More is being sent than the kernels hold, while a client reads at its own pace."""

    def __init__(self, sock: socket.socket, clock: ManualClock) -> None:
        self.connection = Connection(sock, clock=clock)
        self._clock = clock
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        with suppress(OSError):
            self.connection.send(b"x" * 40_000_000)

    def is_stalled(self, limit_s: float) -> bool:
        """Whether it is found stalled now, 0.02 s after the last look."""
        self._clock.advance(0.02)
        return self.connection.is_send_stalled(self._clock.now_s, limit_s)

    def end(self) -> None:
        self.connection.shut(socket.SHUT_RDWR)
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def slow_pair(clock: ManualClock) -> Iterator[tuple[Sending, socket.socket]]:
    """A client with a small window: it makes progress in small steps."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(listener.getsockname())
        ours, _ = listener.accept()
        with ours:
            sending = Sending(ours, clock)
            yield sending, client
            sending.end()


def test_client_that_takes_nothing_is_stalled(slow_pair: tuple[Sending, socket.socket]) -> None:
    wait_until(lambda: slow_pair[0].is_stalled(0.5))


def test_client_that_reads_slowly_and_steadily_is_not_stalled(
    slow_pair: tuple[Sending, socket.socket],
) -> None:
    """A write of this size lasts far longer than the limit."""
    sending, client = slow_pair
    for _ in range(150):
        assert client.recv(2048)
        assert not sending.is_stalled(0.5)
    wait_until(lambda: sending.is_stalled(0.5), message="it is not stalled though it has stopped")


def test_connection_that_sends_nothing_is_not_stalled(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, _ = pair
    connection.send(b"x" * 1000)
    assert not connection.is_send_stalled(time.monotonic() + 1000, 1)
