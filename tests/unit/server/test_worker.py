"""The worker: its connections from the first byte to the last, and errors that no
application has seen."""

from __future__ import annotations

import io
import json
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from gunicorn.config import Config

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.errors import BadRequest, Overloaded
from ollama_proxy.gateway import Lifecycle
from ollama_proxy.server.worker import Worker
from tests.rig.echo_app import app as echo
from tests.rig.http_cases import get, post


@pytest.fixture
def worker() -> Iterator[Any]:
    config = Config()
    for name, value in {
        "max_requests": 3,
        "worker_connections": 2,
        "forwarded_allow_ips": "127.0.0.9",
    }.items():
        config.set(name, value)
    worker = Worker(1, 1, [], None, 30, config, logging.getLogger("test"))
    worker.wsgi, worker._lifecycle = echo, Lifecycle()
    yield worker
    worker.tmp.close()


def answers(worker: Any, data: bytes, address: Any = ("127.0.0.1", 4711)) -> bytes:
    """What a client gets that sends these bytes and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 5)
        ours, _ = listener.accept()
        with client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            worker.handle(listener, ours, address)
            return b"".join(iter(lambda: client.recv(65536), b""))


def seen(worker: Any, data: bytes, address: Any = ("127.0.0.1", 4711)) -> dict[str, Any]:
    """What the application saw of a request."""
    document: dict[str, Any] = json.loads(answers(worker, data, address).partition(b"\r\n\r\n")[2])
    return document


def test_requests_of_a_connection_are_answered(worker: Any) -> None:
    received = answers(worker, post(b"hello", b"Content-Length: 5") + get(b"/b"))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b'"body": "hello"' in received and b'"PATH_INFO": "/b"' in received


def test_after_its_last_request_a_worker_ends(worker: Any) -> None:
    received = answers(worker, get() * 5)
    assert (received.count(b"HTTP/1.1 200 OK\r\n"), worker.alive) == (3, False)
    assert [b"close" in each for each in received.split(b"HTTP/1.1 200")[1:]] == [
        False,
        False,
        True,
    ]


def test_response_of_a_worker_that_ends_is_the_last_one(worker: Any) -> None:
    worker._lifecycle.is_draining = True
    received = answers(worker, get() * 2)
    assert (received.count(b"HTTP/1.1 200 OK\r\n"), b"Connection: close" in received) == (1, True)


def test_a_full_worker_refuses(worker: Any) -> None:
    worker._connections.most = 0
    assert answers(worker, b"").startswith(b"HTTP/1.1 503 ")
    assert len(worker._connections) == 0
    assert worker._lifecycle.refused_connections == 1


@pytest.mark.parametrize(
    ("address", "sent", "scheme"),
    [
        (("127.0.0.9", 1), b"https", "https"),
        ("", b"https", "https"),
        (("127.0.0.9", 1), b"http", "http"),
        (("127.0.0.9", 1), b"https, http", "http"),
        (("127.0.0.1", 1), b"https", "http"),
    ],
)
def test_scheme_is_believed_of_a_proxy_only(
    worker: Any, address: Any, sent: bytes, scheme: str
) -> None:
    assert (
        seen(worker, get(b"/a", b"X-Forwarded-Proto: " + sent), address)["wsgi.url_scheme"]
        == scheme
    )


def test_file_is_sent_and_closed(worker: Any) -> None:
    file = io.BytesIO(b"x" * 100_000)

    def send_file(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "100000")])
        pieces: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 16384)
        return pieces

    worker.wsgi = send_file
    assert answers(worker, get()).endswith(b"\r\n\r\n" + b"x" * 100_000)
    assert file.closed


@pytest.mark.parametrize("pieces", [0, 1])
def test_failure_of_an_application_is_an_error_or_a_cut(worker: Any, pieces: int) -> None:
    def fail(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        for _ in range(pieces):
            yield b"hello"
        raise RuntimeError("secret")

    worker.wsgi = fail
    received = answers(worker, get(b"/v1/models") * 2)
    assert b"secret" not in received
    if pieces:
        assert received.endswith(b"\r\n5\r\nhello\r\n"), "it must not end as it was framed"
    else:
        assert received.startswith(b"HTTP/1.1 500 ") and received.count(b"HTTP/1.1") == 1


def test_errors_of_http_quote_nothing(worker: Any) -> None:
    received = answers(worker, get(b"/v1/models", b"X-Secret : secret"))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"ecret" not in received
    assert (
        json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]
        == "The request is not valid HTTP."
    )


@pytest.mark.parametrize(
    ("path", "field"),
    [("/api/chat", "error"), ("/v1/chat/completions", "error"), ("/v1/messages", "type")],
)
def test_error_has_the_shape_of_the_path_and_closes_the_connection(
    worker: Any, path: str, field: str
) -> None:
    head, _, body = worker._encode_error(BadRequest("no"), {"PATH_INFO": path}).partition(
        b"\r\n\r\n"
    )
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert {"Connection: close", "Cache-Control: no-store", f"Content-Length: {len(body)}"} <= set(
        lines
    )
    assert field in json.loads(body)


def test_refusal_of_a_full_worker_says_when_to_come_back(worker: Any) -> None:
    assert b"\r\nRetry-After: 1\r\n" in worker._encode_error(
        Overloaded(retry_after_s=1), {"PATH_INFO": "/"}
    )


def test_error_has_the_shape_of_the_dialects_of_the_application(worker: Any) -> None:
    worker._dialects = DIALECTS[-1:]
    body = worker._encode_error(BadRequest("no"), {"PATH_INFO": "/v1/messages"}).partition(
        b"\r\n\r\n"
    )[2]
    assert json.loads(body) == {"error": "no"}
