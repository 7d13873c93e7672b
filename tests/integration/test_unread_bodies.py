"""Bodies that are not read to their end: other connections go on, little is taken, the response
arrives, and the connection is closed."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import httpx
import pytest
import requests

from tests.rig import fault_upstream as do
from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.endless_body import EndlessBody
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, encode_request, request
from tests.rig.nginx import Nginx

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}
MAX_BODY = 1 << 20
MIB = 1 << 20
#: What the kernels on both sides may hold of a body that nobody reads; 64 KiB of it are read.
IN_BUFFERS = 24 * MIB


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """Of one worker, so that one connection could stop all of it."""
    config = {
        "auth": {
            "generate_tokens": [TOKEN, {"name": "reader", "token": "sk-reader", "scopes": ["read"]}]
        },
        "service": {"base_url": shared_upstream.url},
        "server": {"max_body": MAX_BODY},
    }
    with Gateway(config, workers=1) as running:
        yield running


#: Requests whose bodies are not read, or not to their end: method, path, headers, status.
REFUSED: dict[str, tuple[str, str, dict[str, str], int]] = {
    "no token": ("POST", "/api/chat", {}, 401),
    "wrong token": ("POST", "/v1/chat/completions", bearer("sk-wrong"), 401),
    "no right": ("POST", "/api/chat", bearer("sk-reader"), 403),
    "unknown path": ("POST", "/nope", bearer(TOKEN), 404),
    "wrong method": ("PUT", "/api/chat", bearer(TOKEN), 405),
    "form": ("POST", "/v1/messages", {**bearer(TOKEN), "Content-Type": "multipart/form-data"}, 415),
    "too large": ("POST", "/api/chat", bearer(TOKEN), 413),
    "bad host": ("POST", "/api/chat", {**bearer(TOKEN), "Host": "a b"}, 400),
    "list": ("GET", "/api/tags", bearer(TOKEN), 200),
    "public page": ("GET", "/livez", {}, 200),
    "preflight": ("OPTIONS", "/api/chat", {}, 204),
}


@pytest.mark.parametrize(("method", "path", "headers", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("framing", ["sized", "chunks of one byte"])
def test_every_response_to_an_unread_body_ends_its_connection(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], status: int, framing: str
) -> None:
    with EndlessBody(gateway.port, method, path, framing, headers) as flood:
        wait_until(
            lambda: flood.refused_after_s is not None,
            60,
            lambda: f"still sending after {flood.sent} bytes",
        )
    assert flood.status == status
    assert b"connection: close" in flood.received.lower()
    # What is too large is noticed when it has been read that far; a byte takes six
    # as a chunk of its own.
    assert flood.sent < IN_BUFFERS + 6 * MAX_BODY


@pytest.mark.parametrize("size", [1, 70_000, 3 * MIB, 30 * MIB], ids=lambda size: f"{size} bytes")
def test_client_that_sends_everything_first_can_read_the_error(gateway: Gateway, size: int) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as sock:
        try:
            sock.sendall(encode_request("gw", "POST", "/api/chat", b" " * size))
        except OSError:
            pass  # the response is there all the same
        stream = Stream(sock)
        assert (stream.status, stream.headers.get("connection")) == (401, "close")
        assert json.loads(stream.read_all())["error"]


def test_client_may_send_on_when_the_response_is_there(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as sock:
        whole = encode_request("gw", "POST", "/api/chat", b" " * 100_000)
        head, body = whole[:-100_000], whole[-100_000:]
        sock.sendall(head)
        stream = Stream(sock)
        assert stream.status == 401
        stream.read_all()
        assert sock.recv(1) == b""
        # A closed connection answers the first piece with a reset, which is an error of the next.
        for start in range(0, len(body), 1000):
            sock.sendall(body[start : start + 1000])


@pytest.mark.parametrize("size", [70_000, 30 * MIB], ids=lambda size: f"{size} bytes")
def test_usual_clients_show_the_error(gateway: Gateway, size: int) -> None:
    url, body, headers = f"{gateway.url}/v1/chat/completions", b" " * size, bearer("sk-wrong")
    assert requests.post(url, data=body, headers=headers, timeout=10).status_code == 401
    assert httpx.post(url, content=body, headers=headers, timeout=10).status_code == 401
    too_large = requests.post(url, data=b" " * (MAX_BODY + 1), headers=bearer(TOKEN), timeout=10)
    assert (too_large.status_code, too_large.headers["Connection"]) == (413, "close")


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_connection_goes_on_after_a_body_that_was_read(
    gateway: Gateway, upstream: FaultUpstream, chunked: bool
) -> None:
    upstream.script(
        "/api/chat", [do.Json({"message": {"role": "assistant", "content": "hi"}, "done": True})]
    )
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    body = json.dumps(CHAT).encode()
    for _ in range(3):
        connection.request(
            "POST",
            "/api/chat",
            iter([body]) if chunked else body,
            bearer(TOKEN),
            encode_chunked=chunked,
        )
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (200, "keep-alive")
        response.read()
    connection.close()


def test_connection_goes_on_after_an_error_to_a_body_that_was_read(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    for body, status in ((b"{", 400), (b"[]", 400), (None, 400)):
        connection.request("POST", "/api/chat", body, bearer(TOKEN))
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (status, "keep-alive")
        response.read()
    connection.close()


@pytest.mark.parametrize("size", [100_000, 10 * MIB, 50 * MIB], ids=lambda size: f"{size} bytes")
def test_nginx_passes_the_error_on(gateway: Gateway, nginx: Nginx, size: int) -> None:
    for _ in range(3):
        answer: Answer = request(
            nginx.url, "POST", "/api/chat", b" " * size, bearer("sk-wrong"), timeout=20
        )
        assert (answer.status, answer.complete) == (401, True)
