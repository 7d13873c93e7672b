"""Requests that one connection sends in advance wait between each other for everybody else's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import encode_request

TOKEN = "sk-team-token-1"
IN_ADVANCE = 3000


@pytest.fixture
def one_worker(upstream: FaultUpstream) -> Iterator[Gateway]:
    config = {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": upstream.url}}
    with Gateway(config, workers=1) as running:
        yield running


def asking(identity: str) -> bytes:
    """A request that needs no upstream, and not even a token."""
    return encode_request(
        "gw", "GET", "/api/version", None, {"X-Request-Id": identity, "Connection": "keep-alive"}
    )


def read_answers(sock: socket.socket, last: bytes) -> None:
    """Reads until the answer with this id is there."""
    received = b""
    while last not in received:
        data = sock.recv(1 << 16)
        assert data, "the connection was closed"
        received = received[-len(last) :] + data


def answered(gateway: Gateway) -> list[str]:
    """The ids of all requests, in the order in which they were answered."""
    return [line["id"] for line in gateway.log_lines("access")]


def test_one_connection_does_not_keep_the_others_waiting(one_worker: Gateway) -> None:
    """Both are connected before; the second asks when the first has its first answer."""
    address = ("127.0.0.1", one_worker.port)
    with (
        socket.create_connection(address, 30) as greedy,
        socket.create_connection(address, 30) as modest,
    ):
        requests = b"".join(asking(f"greedy-{number}-") for number in range(IN_ADVANCE))
        sender = threading.Thread(target=greedy.sendall, args=(requests,))
        sender.start()
        read_answers(greedy, b"greedy-0-")
        modest.sendall(asking("modest-"))
        read_answers(modest, b"modest-")
        read_answers(greedy, f"greedy-{IN_ADVANCE - 1}-".encode())
        sender.join(10)
    wait_until(lambda: {"modest-", f"greedy-{IN_ADVANCE - 1}-"} <= {*answered(one_worker)}, 10)
    assert answered(one_worker).index("modest-") < IN_ADVANCE / 2
