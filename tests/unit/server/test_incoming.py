"""Heads of requests as they come in on a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ollama_proxy.server.incoming import MAX_HEAD_BYTES, ClientReader

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, ClientReader]]:
    client, server = socket.socketpair()
    client.settimeout(5)
    server.settimeout(5)
    with client, server:
        yield client, ClientReader(server)


def test_what_follows_a_head_stays(pair: tuple[socket.socket, ClientReader]) -> None:
    client, reader = pair
    client.sendall(HEAD + b"body" + HEAD)
    assert reader.read_head(4096) == HEAD
    assert reader.read() == b"body" + HEAD


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nHost: x", b"GET / HTTP/1.1\nHost: x\n\n"], ids=["cut", "bare newlines"]
)
def test_a_head_without_its_end(pair: tuple[socket.socket, ClientReader], sent: bytes) -> None:
    client, reader = pair
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    assert reader.read_head(4096) == sent


def test_a_line_without_an_end_is_not_read_for_ever(pair: tuple[socket.socket, ClientReader]) -> None:
    client, reader = pair
    client.sendall(b"GET /" + b"a" * 10_000)
    assert not reader.read_head(1000).endswith(b"\r\n\r\n")


def test_a_head_is_not_read_beyond_its_limit(pair: tuple[socket.socket, ClientReader]) -> None:
    client, reader = pair
    client.sendall(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEAD_BYTES // 6 + 10))
    assert len(reader.read_head(4096)) > MAX_HEAD_BYTES
