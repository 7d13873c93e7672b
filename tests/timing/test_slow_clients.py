"""A client that sends its body too slowly is told so, and holds nothing: not a worker's place, not
an upstream. One that reads slowly gets its answer, and one that stops reading is cut."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.rig.calls import TOKEN, warm_up
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import MODEL, FaultUpstream, Json
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, raw

SEND_IDLE_S = 0.6
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    limits = {"send_idle_s": SEND_IDLE_S}
    with checked_gateway(
        shared_upstream, TOKEN, warm=warm_up, unsaid=("Traceback",), workers=1, timeouts=limits
    ) as running:
        yield running


def head(path: str, length: int) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gateway.test",
        f"Authorization: Bearer {TOKEN}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    "path", ["/api/chat", "/v1/chat/completions", "/v1/embeddings", f"/api/blobs/{DIGEST}"]
)
def test_body_that_stops_coming_is_answered_with_408(
    gateway: Gateway, upstream: FaultUpstream, path: str
) -> None:
    answer = raw(gateway.port, head(path, 100) + b'{"mod', timeout=8)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive in time" in answer


def test_what_did_not_arrive_is_asked_of_nobody(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.clear()
    raw(gateway.port, head("/api/chat", 100) + b'{"model": "m"', timeout=8)
    assert [seen for seen in upstream.requests if seen.path == "/api/chat"] == []


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", f"/api/blobs/{DIGEST}"])
def test_body_that_comes_slowly_and_without_a_pause_is_taken(
    gateway: Gateway, upstream: FaultUpstream, path: str
) -> None:
    body = b'{"model":"m","stream":false,"messages":[{"role":"user","content":"slow"}]}'
    upstream.script(f"/api/blobs/{DIGEST}", [Json({})])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head(path, len(body)))
        began = time.monotonic()
        for start in range(0, len(body), 10):
            # A clock of its own: the pauses are what this is about.
            time.sleep(SEND_IDLE_S / 3)
            client.sendall(body[start : start + 10])
        assert time.monotonic() - began > 2 * SEND_IDLE_S
        answer = client.recv(4096)
        assert answer[9:10] == b"2", answer


#: More than the kernels hold between the gateway and a client with a small window.
ANSWER = {
    "model": MODEL,
    "message": {"role": "assistant", "content": "x" * 8_000_000},
    "done": True,
}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}


@pytest.fixture
def large_answer(gateway: Gateway, upstream: FaultUpstream) -> Iterator[Stream]:
    """It is on its way, and nothing has been read."""
    upstream.script("/api/chat", [Json(ANSWER)])
    with gateway.open("/api/chat", CHAT, receive_buffer=8192) as stream:
        yield stream


def test_client_that_reads_slowly_and_steadily_gets_all_of_its_answer(large_answer: Stream) -> None:
    """At this pace a single write takes many times the limit."""
    began, size = time.monotonic(), 0
    while time.monotonic() - began < 6 * SEND_IDLE_S:
        size += len(large_answer.read_some())
        time.sleep(SEND_IDLE_S / 20)
    assert size < 2_000_000
    size += len(large_answer.read_all(30))
    assert (size > 8_000_000, large_answer.complete) == (True, True)


def test_client_that_stops_reading_is_cut(large_answer: Stream) -> None:
    large_answer.read_some()
    time.sleep(4 * SEND_IDLE_S)
    assert len(large_answer.read_all(30)) < 8_000_000
    assert not large_answer.complete
