"""Large heads and bodies, and slow ones, take little time of the worker and keep no other client
waiting."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.test_large_heads import KIB, sized_head
from tests.integration.test_unread_bodies import IN_BUFFERS, MAX_BODY
from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.endless_body import FRAMINGS, EndlessBody, slowest_livez_s
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, encode_request, request
from tests.rig.trickle import Trickle, cpu_s

LIVEZ_S = 0.25
#: Seconds in which others ask: a hundred times and more.
WATCHED_S = 0.4


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Of one worker, so that one connection could stop all of it."""
    with FaultUpstream() as upstream:
        config = {
            "auth": {"generate_tokens": [TOKEN]},
            "service": {"base_url": upstream.url},
            "server": {"max_body": MAX_BODY},
        }
        with Gateway(config, workers=1) as running:
            yield running


# Bodies.


@pytest.mark.parametrize("framing", FRAMINGS)
def test_floods_without_a_token_keep_nobody_waiting(gateway: Gateway, framing: str) -> None:
    """One client reads the response while it sends, and one only at the end."""
    with (
        EndlessBody(gateway.port, "POST", "/api/chat", framing) as reads,
        EndlessBody(gateway.port, "POST", "/api/chat", framing, reads=False) as reads_last,
    ):
        floods = (reads, reads_last)
        slowest_s = slowest_livez_s(gateway, WATCHED_S)
        wait_until(
            lambda: all(flood.refused_after_s is not None for flood in floods),
            30,
            lambda: f"still sending after {[flood.sent for flood in floods]} bytes",
        )
    assert slowest_s < LIVEZ_S
    for flood in floods:
        assert flood.sent < IN_BUFFERS
        assert flood.status == 401
        assert b"connection: close" in flood.received.lower()


@pytest.mark.parametrize(
    "framing", ["chunked", "chunks of one byte", "chunks with long extensions"]
)
def test_body_that_is_read_leaves_turns_for_others(gateway: Gateway, framing: str) -> None:
    """It comes from a client that may send it, up to the limit."""
    with EndlessBody(gateway.port, "POST", "/api/chat", framing, bearer(TOKEN)):
        assert slowest_livez_s(gateway, WATCHED_S) < LIVEZ_S


def test_body_that_trickles_in_is_given_a_second(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as sock:
        sock.sendall(encode_request("gw", "POST", "/api/chat", b"", {"Content-Length": "1000"}))
        stream = Stream(sock)
        assert (stream.status, stream.headers.get("connection")) == (401, "close")
        assert "token" in stream.read_all().decode()
        began = time.monotonic()

        def is_closed() -> bool:
            try:
                sock.sendall(b" ")
            except OSError:
                return True
            return False

        wait_until(is_closed, 3, "bytes are still taken")
        assert 0.5 < time.monotonic() - began < 2


def test_connection_is_closed_as_soon_as_the_client_has_read_the_response(gateway: Gateway) -> None:
    before = time.monotonic()
    for _ in range(20):
        assert request(gateway.url, "POST", "/nope", b"x" * 1000).status == 401
    assert time.monotonic() - before < 5


# Heads.


TRICKLED: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "head": lambda: (b"GET /livez HTTP/1.1\r\nHost: gw\r\n", sized_head(3 * KIB)[30:-4]),
    "long lines": lambda: (sized_head(28 * KIB, "/livez")[:-2], b"X: " + b"y" * 3000),
    "large head": lambda: (sized_head(780 * KIB, "/livez")[:-2], b"X: " + b"y" * 3000),
}


@pytest.mark.parametrize("kind", TRICKLED)
def test_trickled_head_takes_little_cpu_time(gateway: Gateway, kind: str) -> None:
    """Each segment costs about 0.05 ms, where copies and scans of a head of 780 KB take
    more than a millisecond."""
    first, slowly = TRICKLED[kind]()
    (worker,) = gateway.worker_pids()
    with Trickle(gateway.port, first, slowly) as trickle:
        slowest_s = slowest_livez_s(gateway, WATCHED_S)
        used_s = cpu_s(worker)
        wait_until(trickle.is_over, 14, "the bytes are not all sent")
        used_s = cpu_s(worker) - used_s
    assert slowest_s < LIVEZ_S
    assert used_s < 0.5 + 0.0002 * trickle.sent


def test_trickled_trailers_take_little_cpu_time(gateway: Gateway) -> None:
    """They are scanned as a head is."""
    head = b"POST /api/show HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer %b\r\n\r\n"
    lines = b"".join(b"X-%d: " % n + b"y" * 7000 + b"\r\n" for n in range(90))
    (worker,) = gateway.worker_pids()
    with Trickle(
        gateway.port, head % TOKEN.encode() + b"2\r\n{}\r\n0\r\n" + lines, b"y" * 3000
    ) as trickle:
        used_s = cpu_s(worker)
        wait_until(trickle.is_over, 14, "the bytes are not all sent")
        assert cpu_s(worker) - used_s < 0.5 + 0.0002 * trickle.sent
    assert json.loads(trickle.received.partition(b"\r\n\r\n")[2])["error"]
