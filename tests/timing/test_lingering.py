"""A client has a second to read the last response of a connection before it is closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ollama_proxy.server.connection import LINGER_BYTES, LINGER_S, Connection

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The socket of a connection, and its client's."""
    ours, client = socket.socketpair()
    client.setblocking(False)
    with ours, client:
        yield ours, client


def start_lingering(sock: socket.socket) -> threading.Thread:
    thread = threading.Thread(target=Connection(sock).linger, daemon=True)
    thread.start()
    return thread


def test_client_that_goes_on_sending_is_read_within_a_limit(pair: Pair) -> None:
    ours, client = pair
    sent, began = 0, time.monotonic()
    thread = start_lingering(ours)
    while thread.is_alive():
        try:
            sent += client.send(b"x" * 4096)
        except BlockingIOError:
            thread.join(0.01)
    assert LINGER_S - 0.1 < time.monotonic() - began < LINGER_S + 2
    assert client.recv(1) == b"", "it is told that nothing more comes"
    buffered = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert LINGER_BYTES < sent <= LINGER_BYTES + 2 * buffered


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_client_that_closes_has_not_to_be_waited_for(pair: Pair, size: int) -> None:
    ours, client = pair
    client.send(b"x" * size)
    began = time.monotonic()
    thread = start_lingering(ours)
    client.close()
    thread.join(5)
    assert time.monotonic() - began < LINGER_S / 2


def test_silent_client_is_given_a_second(pair: Pair) -> None:
    began = time.monotonic()
    start_lingering(pair[0]).join(5)
    assert LINGER_S - 0.1 < time.monotonic() - began < LINGER_S + 2
