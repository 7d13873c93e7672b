"""Reaching every worker of a gateway: the kernel decides which one takes a connection,
and may like one best."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Body, Stream, bearer, encode_request

#: So many ask at the same time: a worker that is busy with one leaves the next to another worker.
AT_ONCE = 4


def until_all_answer(gateway: Gateway, ask: Callable[[], Iterable[int]], seconds: float) -> None:
    """Runs `ask`, which makes a connection of its own and gives the process ids that answered it,
    until every worker has. Raises AssertionError when one has not within ``seconds``."""
    seen: set[int] = set()

    def all_seen() -> bool:
        for pids in pool.map(lambda _: ask(), range(AT_ONCE)):
            seen.update(pids)
        return gateway.worker_pids() <= seen

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wait_until(all_seen, seconds, lambda: f"only {seen} of {gateway.worker_pids()} answered")


def ask_each_worker(
    gateway: Gateway,
    path: str,
    body: Body = None,
    *,
    operator: str = "",
    method: str = "",
    token: str = "",
    timeout: float = 20,
    **headers: str,
) -> dict[int, Answer]:
    """What each worker answers to the same request, by its process id. One answer alone shows
    something of one worker only: another may follow a change later.

    `operator` is a token with the scope manage; for it, as for `token`, the first one of the
    configuration is the default. The other parameters are those of `Gateway.ask`.
    """
    method = method or ("GET" if body is None else "POST")
    sent = bearer(token or gateway.token) | headers
    with connected_to_each(gateway, operator or gateway.token) as sockets:
        return {
            pid: exchange(sock, method, path, body, sent, timeout) for pid, sock in sockets.items()
        }


@contextmanager
def connected_to_each(
    gateway: Gateway, operator: str, seconds: float = 20
) -> Iterator[dict[int, socket.socket]]:
    """An open connection to each worker, by its process id. Raises AssertionError when a worker
    takes none within ``seconds``."""
    taken: dict[int, socket.socket] = {}
    with ExitStack() as closing:

        def all_have_one() -> bool:
            for sock in connect_together(gateway, closing):
                with suppress(ConnectionError):  # the worker that took it has just ended
                    answer = exchange(sock, "GET", "/readyz", headers=bearer(operator))
                    taken[answer.json()["details"]["pid"]] = sock
            return gateway.worker_pids() <= taken.keys()

        wait_until(all_have_one, seconds, lambda: f"only {set(taken)} took a connection")
        yield {pid: sock for pid, sock in taken.items() if pid in gateway.worker_pids()}


def ask_together(gateway: Gateway, path: str, token: str) -> list[Answer]:
    """What is answered on several connections that are open together, each by any worker."""
    answers = []
    with ExitStack() as closing:
        for sock in connect_together(gateway, closing):
            with suppress(ConnectionError):  # the worker that took it has just ended
                answers.append(exchange(sock, "GET", path, headers=bearer(token)))
    return answers


def connect_together(gateway: Gateway, closing: ExitStack) -> list[socket.socket]:
    """Connections that are all open before one is used: otherwise the same worker might take each
    of them."""
    return [
        closing.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
        for _ in range(2 * gateway.workers)
    ]


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
