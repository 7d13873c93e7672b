"""A client that sends its body too slowly is told so, and holds nothing: not a worker's place, not
an upstream. One that reads slowly gets its answer, and one that stops reading is cut."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rig.calls import CHAT_LINE, FACES, TOKEN, Face, ask, warm_up
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import MODEL, Chunk, FaultUpstream, Flood, Json
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


def send_slowly(port: int, path: str, pieces: Sequence[bytes]) -> bytes:
    """Send the pieces with a pause before each of a third of the limit, and return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head(path, len(b"".join(pieces))))
        for piece in pieces:
            # A clock of its own: the pauses are what this is about.
            time.sleep(SEND_IDLE_S / 3)
            client.sendall(piece)
        return client.recv(4096)


def test_body_that_stops_coming_is_answered_with_408(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    """And no model is asked; an upload is passed on as it comes."""
    paths = ["/api/chat", "/v1/chat/completions", "/v1/embeddings", f"/api/blobs/{DIGEST}"]
    with ThreadPoolExecutor(len(paths)) as pool:
        answers = pool.map(
            lambda path: raw(gateway.port, head(path, 100) + b'{"model": "m"', timeout=8), paths
        )
        wrong = {
            path: answer
            for path, answer in zip(paths, answers, strict=True)
            if not answer.startswith(b"HTTP/1.1 408 ") or b"did not arrive in time" not in answer
        }
    assert not wrong
    assert [seen for seen in upstream.requests if seen.path in ("/api/chat", "/api/embed")] == []


def test_body_that_comes_slowly_and_without_a_pause_is_taken(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    paths = ["/api/chat", "/v1/chat/completions", f"/api/blobs/{DIGEST}"]
    body = b'{"model":"m","stream":false,"messages":[{"role":"user","content":"slow"}]}'
    pieces = [body[start : start + 10] for start in range(0, len(body), 10)]
    assert len(pieces) / 3 > 2, "it takes more than twice the limit"
    upstream.script(f"/api/blobs/{DIGEST}", [Json({})])
    with ThreadPoolExecutor(len(paths)) as pool:
        answers = pool.map(lambda path: send_slowly(gateway.port, path, pieces), paths)
        wrong = {
            path: answer
            for path, answer in zip(paths, answers, strict=True)
            if answer[9:10] != b"2"
        }
    assert not wrong


# Clients that read slowly, or stop.


#: More than the kernels hold between the gateway and a client with a small window.
ANSWER = {
    "model": MODEL,
    "message": {"role": "assistant", "content": "x" * 8_000_000},
    "done": True,
}
LONG_LINE = (
    json.dumps({**CHAT_LINE, "message": {"role": "assistant", "content": "x" * 4000}}).encode()
    + b"\n"
)
EMBEDDINGS = Face(
    "/v1/embeddings",
    {"model": "m", "input": ["hi"] * 300, "encoding_format": "float"},
    "/api/embed",
    {},
)


def read_slowly(stream: Stream, seconds: float, pause_s: float) -> int:
    """Read for a while with pauses. Return how many bytes there were."""
    ends_at, size = time.monotonic() + seconds, 0
    while time.monotonic() < ends_at and (data := stream.read_some()):
        size += len(data)
        time.sleep(pause_s)  # this is the slow client itself, not a wait for something
    return size


def wait_until_cut(gateway: Gateway, request_id: str) -> None:
    """Until the place of a client that does not read is free."""
    line = wait_until(
        lambda: [each for each in gateway.log_lines("access") if each["id"] == request_id],
        8,
        "a client that does not read holds its place",
    )
    assert line[0]["state"] == "client_gone"


def test_client_that_reads_slowly_and_steadily_gets_all_of_its_answer(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    """At this pace a single write takes many times the limit."""
    upstream.script("/api/chat", [Json(ANSWER)])
    with ask(gateway.url, FACES["native chat"], stream=False, receive_buffer=8192) as stream:
        size = read_slowly(stream, 3 * SEND_IDLE_S, SEND_IDLE_S / 20)
        assert size < 2_000_000
        size += len(stream.read_all(30))
        assert (size > 8_000_000, stream.complete) == (True, True)


def test_slow_but_steady_reader_of_a_stream_is_not_cut(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    end = json.dumps({**CHAT_LINE, "done": True, "done_reason": "stop"}).encode() + b"\n"
    upstream.script("/api/chat", [Flood(LONG_LINE, limit_bytes=8_000_000), Chunk(end)])
    with ask(gateway.url, FACES["native chat"], receive_buffer=8192) as stream:
        size = read_slowly(stream, 3 * SEND_IDLE_S, 0.01)
        size += len(stream.read_all(20))
    assert (size > 8_000_000, stream.complete) == (True, True)


def test_client_that_stops_reading_is_cut(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/chat", [Json(ANSWER)])
    face = FACES["native chat"]
    with ask(gateway.url, face, request_id, stream=False, receive_buffer=8192) as stream:
        stream.read_some()
        wait_until_cut(gateway, request_id)
        assert len(stream.read_all(30)) < 8_000_000
        assert not stream.complete


def test_stalled_reader_of_a_large_single_answer_is_cut(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    vectors = [[0.123456789] * 4000] * 300
    upstream.script(
        "/api/embed", [Json({"model": "m", "embeddings": vectors, "prompt_eval_count": 1})]
    )
    with ask(gateway.url, EMBEDDINGS, request_id, stream=False, receive_buffer=8192):
        wait_until_cut(gateway, request_id)
