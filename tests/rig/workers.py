"""Asking each worker of a gateway, on the socket that it has for itself: on the gateway's own port
the kernel decides which one takes a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Body, Stream, bearer, encode_request


def ask_each_worker(
    gateway: Gateway,
    path: str,
    body: Body = None,
    *,
    method: str = "",
    token: str = "",
    timeout: float = 20,
    **headers: str,
) -> dict[int, Answer]:
    """What each worker answers to the same request, by its process id. One answer alone shows
    something of one worker only: another may follow a change later. The parameters are those of
    `Gateway.ask`."""
    method = method or ("GET" if body is None else "POST")
    sent = bearer(token or gateway.token) | headers
    with connected_to_each(gateway) as sockets:
        return {
            pid: exchange(sock, method, path, body, sent, timeout) for pid, sock in sockets.items()
        }


@contextmanager
def connected_to_each(gateway: Gateway) -> Iterator[dict[int, socket.socket]]:
    """An open connection to each worker, by its process id."""
    with ExitStack() as closing:
        yield {pid: closing.enter_context(gateway.connect_to(pid)) for pid in gateway.worker_pids()}


def exchange(
    sock: socket.socket,
    method: str,
    path: str,
    body: Body = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 20,
) -> Answer:
    """A request on a connection that stays open, and its answer."""
    sent = {"Connection": "keep-alive"} | dict(headers or {})
    sock.sendall(encode_request("127.0.0.1", method, path, body, sent))
    stream = Stream(sock, bodyless=method == "HEAD")
    data = stream.read_all(timeout)
    return Answer(stream.status, stream.headers, data, stream.complete)
