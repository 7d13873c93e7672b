"""A client that leaves, in any phase of any face, is noticed upstream within a second and leaves nothing behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import http_client
from tests.rig.calls import (
    CHAT_LINE,
    DIGEST,
    EMBEDDINGS,
    FACES,
    STREAM_HEAD,
    TOKEN,
    Face,
    access_line,
    ask,
    config,
    each_dialect,
    each_face,
    each_single,
    growth_kib,
    resident_kib,
    warm_up,
)
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, FaultUpstream, Flood, Head, Json, ReadBody, Script, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, encode_request, open_stream, request
from tests.rig.leaks import worker_details
from tests.rig.nginx import Nginx

#: the promise: seconds between a client's leaving and the close of the connection to the upstream
NOTICED_S = 1.0


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """One gateway for the module; nothing of what its tests did may be left at the end."""
    unsaid = ("Traceback", "internal_error")
    with checked_gateway(
        config(shared_upstream.url, timeouts={"send_idle_s": 1.5}), shared_upstream, TOKEN, warm=warm_up, unsaid=unsaid
    ) as gateway:
        yield gateway


def leave(stream: Stream, upstream: FaultUpstream, path: str, *, reset: bool = False) -> None:
    """Close the client's connection and check the promise."""
    connection = upstream.wait_for_request(1, path).connection
    left_at = time.monotonic()
    stream.close(reset=reset)
    assert upstream.wait_peer_closed(connection) - left_at < NOTICED_S


def expect_client_gone(gateway: Gateway, request_id: str) -> dict[str, Any]:
    line = access_line(gateway, request_id)
    assert line["state"] == "client_gone"
    return line


@each_face
def test_client_leaves_before_the_head(gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    leave(ask(gateway.url, face, request_id, wait_for_head=False), upstream, face.upstream_path)
    assert expect_client_gone(gateway, request_id)["error"] == "client_gone"


@each_face
def test_client_leaves_before_the_first_token(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [STREAM_HEAD, WaitForPeerClose()])
    leave(ask(gateway.url, face, request_id, wait_for_head=False), upstream, face.upstream_path)
    expect_client_gone(gateway, request_id)


@each_face
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_client_leaves_between_tokens(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face, reset: bool
) -> None:
    upstream.script(
        face.upstream_path, [STREAM_HEAD, Chunk(json.dumps(face.line).encode() + b"\n"), WaitForPeerClose()]
    )
    stream = ask(gateway.url, face, request_id)
    assert stream.read_some()
    leave(stream, upstream, face.upstream_path, reset=reset)
    line = expect_client_gone(gateway, request_id)
    assert (line["status"], line["upstream"]) == (200, "ollama")
    assert line["bytes"] > 0


@each_single
@pytest.mark.parametrize("before", [(), (Head(200), Chunk(b'{"model":"m",'))], ids=["no head yet", "half an answer"])
def test_client_leaves_a_single_answer(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face, before: Script
) -> None:
    upstream.script(face.upstream_path, [*before, WaitForPeerClose()])
    leave(ask(gateway.url, face, request_id, stream=False, wait_for_head=False), upstream, face.upstream_path)
    expect_client_gone(gateway, request_id)


def upload(gateway: Gateway, request_id: str, framing: tuple[str, str], sent: bytes) -> Stream:
    """Send the head of a blob upload and this much of its body."""
    headers = [("X-Request-Id", request_id), *bearer(TOKEN).items(), framing]
    stream = open_stream(gateway.url, "POST", f"/api/blobs/{DIGEST}", None, headers, wait_for_head=False)
    stream.sock.sendall(sent)
    return stream


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (("Content-Length", "5000000"), b"x" * 500_000),
        (("Transfer-Encoding", "chunked"), b"%x\r\n%s\r\n" % (500_000, b"x" * 500_000)),
        (("Transfer-Encoding", "chunked"), b"%x\r\n%s" % (5_000_000, b"x" * 500_000)),
    ],
    ids=["sized", "between chunks", "inside a chunk"],
)
def test_client_leaves_in_the_middle_of_an_upload(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, framing: tuple[str, str], sent: bytes
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    leave(upload(gateway, request_id, framing, sent), upstream, f"/api/blobs/{DIGEST}")
    expect_client_gone(gateway, request_id)


def test_client_leaves_after_an_upload(gateway: Gateway, upstream: FaultUpstream, request_id: str) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    stream = upload(gateway, request_id, ("Content-Length", "10"), b"0123456789")
    leave(stream, upstream, f"/api/blobs/{DIGEST}")
    expect_client_gone(gateway, request_id)


def test_an_upload_that_was_left_is_never_completed_upstream(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    part = b"%x\r\n%s\r\n" % (500_000, b"x" * 500_000)
    leave(upload(gateway, request_id, ("Transfer-Encoding", "chunked"), part), upstream, f"/api/blobs/{DIGEST}")
    assert not upstream.wait_for_request(1, f"/api/blobs/{DIGEST}").complete


PHASES: dict[str, tuple[str, bool, Script]] = {
    "before the head": ("native chat", True, [WaitForPeerClose()]),
    "before the first token": ("openai completions", True, [STREAM_HEAD, WaitForPeerClose()]),
    "between tokens": (
        "openai chat",
        True,
        [STREAM_HEAD, Chunk(json.dumps(CHAT_LINE).encode() + b"\n"), WaitForPeerClose()],
    ),
    "before the first event": ("anthropic messages", True, [STREAM_HEAD, WaitForPeerClose()]),
    "single answer": ("native generate", False, [WaitForPeerClose()]),
    "single response": ("openai responses", False, [WaitForPeerClose()]),
}


@pytest.mark.parametrize("phase", PHASES)
def test_client_of_nginx_leaves(
    gateway: Gateway, nginx: Nginx, upstream: FaultUpstream, request_id: str, phase: str
) -> None:
    name, streams, script = PHASES[phase]
    face = FACES[name]
    upstream.script(face.upstream_path, script)
    stream = ask(nginx.url, face, request_id, stream=streams, wait_for_head=phase == "between tokens")
    if phase == "between tokens":
        assert stream.read_some()
    leave(stream, upstream, face.upstream_path)
    expect_client_gone(gateway, request_id)


def test_client_of_nginx_leaves_an_upload(
    gateway: Gateway, nginx: Nginx, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [ReadBody(), WaitForPeerClose()])
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    stream = open_stream(nginx.url, "POST", f"/api/blobs/{DIGEST}", b"0" * 100_000, headers, wait_for_head=False)
    leave(stream, upstream, f"/api/blobs/{DIGEST}")
    expect_client_gone(gateway, request_id)


def test_many_clients_that_leave_at_once_leave_nothing_in_flight(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [STREAM_HEAD, Chunk(json.dumps(CHAT_LINE).encode() + b"\n"), WaitForPeerClose()])
    streams = [ask(gateway.url, FACES["native chat"], f"storm-{n}", wait_for_head=n % 2 == 0) for n in range(40)]
    upstream.wait_for_request(40, "/api/chat")
    for stream in streams:
        stream.close()
    wait_until(lambda: sum(d["in_flight"] for d in worker_details(gateway, TOKEN).values()) == 0, 2, "some stayed")
    states = [access_line(gateway, f"storm-{n}")["state"] for n in range(40)]
    assert states == ["client_gone"] * 40


# --- Clients that stop reading ---------------------------------------------------------------------------------------


LONG_LINE = json.dumps({**CHAT_LINE, "message": {"role": "assistant", "content": "x" * 4000}}).encode() + b"\n"


@each_dialect
def test_stalled_reader_is_cut_and_the_upstream_slowed_not_buffered(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script("/api/chat", [Flood(LONG_LINE, limit_s=20)])
    before = {pid: resident_kib(pid) for pid in gateway.worker_pids()}
    with ask(gateway.url, face, request_id, receive_buffer=8192) as stream:
        read = 0
        while read < 65536:
            read += len(stream.read_some())
        stopped_at = time.monotonic()
        connection = upstream.wait_for_request(1, "/api/chat").connection
        closed_at = upstream.wait_peer_closed(connection, seconds=8)
        assert closed_at - stopped_at < 1.5 + 3
        assert growth_kib(gateway, before) < 20_000
        assert upstream.bytes_sent(connection) < 40_000_000
    expect_client_gone(gateway, request_id)


def test_stalled_reader_of_a_large_single_answer_is_cut(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    vectors = [[0.123456789] * 4000] * 300
    upstream.script("/api/embed", [Json({"model": "m", "embeddings": vectors, "prompt_eval_count": 1})])
    face = Face("/v1/embeddings", {"model": "m", "input": ["hi"] * 300, "encoding_format": "float"}, "/api/embed", {})
    with ask(gateway.url, face, request_id, stream=False, receive_buffer=8192):
        line = wait_until(
            lambda: [each for each in gateway.log_lines("access") if each["id"] == request_id],
            8,
            "a client that does not read holds its place",
        )
    assert line[0]["state"] == "client_gone"


def test_slow_but_steady_reader_is_not_cut(gateway: Gateway, upstream: FaultUpstream) -> None:
    end = json.dumps({**CHAT_LINE, "done": True, "done_reason": "stop"}).encode() + b"\n"
    upstream.script("/api/chat", [Flood(LONG_LINE, limit_bytes=8_000_000), Chunk(end)])
    with ask(gateway.url, FACES["native chat"], receive_buffer=8192) as stream:
        began, read = time.monotonic(), 0
        while time.monotonic() - began < 4 and (data := stream.read_some()):
            read += len(data)
            time.sleep(0.01)  # this is the slow client itself, not a wait for something
        rest = stream.read_all(20)
    assert stream.complete
    assert read + len(rest) > 8_000_000


# --- Requests that are not whole -------------------------------------------------------------------------------------

SHORT = [*FACES.values(), *EMBEDDINGS.values()]


@pytest.mark.parametrize("face", SHORT, ids=[*FACES, *EMBEDDINGS])
@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (("Content-Length", "100"), b'{"model":"'),
        (
            ("Content-Length", "1000"),
            b'{"model":"m","prompt":"a","input":"a","messages":[{"role":"user","content":"a"}]}',
        ),
        (("Transfer-Encoding", "chunked"), b'20\r\n{"model":"m","prompt":"'),
        (("Transfer-Encoding", "chunked"), b'c\r\n{"model":"m"\r\n'),
    ],
    ids=["10 of 100", "complete JSON", "inside a chunk", "no last chunk"],
)
def test_short_body_is_400_and_reaches_nobody(
    gateway: Gateway, upstream: FaultUpstream, face: Face, framing: tuple[str, str], sent: bytes
) -> None:
    headers = [*bearer(TOKEN).items(), framing]
    head = encode_request(f"127.0.0.1:{gateway.port}", "POST", face.path, None, headers)
    answer = http_client.raw(gateway.port, head + sent, half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert isinstance(error, dict) == face.path.startswith("/v1/")
    assert all(seen.path != face.upstream_path for seen in upstream.requests)


POST_ONLY = ["/api/chat", "/api/generate", "/api/embed", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
POST_ONLY += ["/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/anthropic/v1/messages"]


@pytest.mark.parametrize("path", POST_ONLY)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_wrong_method_is_405_with_allow(gateway: Gateway, upstream: FaultUpstream, path: str, method: str) -> None:
    answer = request(gateway.url, method, path, headers=bearer(TOKEN))
    assert answer.status == 405
    assert "POST" in (answer.headers.get("Allow") or "")
    assert all(seen.path == "/api/version" for seen in upstream.requests)


@pytest.mark.parametrize("path", POST_ONLY)
def test_options_says_what_is_allowed_without_a_token(gateway: Gateway, upstream: FaultUpstream, path: str) -> None:
    answer = request(gateway.url, "OPTIONS", path)
    assert answer.status == 204
    assert "POST" in (answer.headers.get("Allow") or "")
    assert all(seen.path == "/api/version" for seen in upstream.requests)


def test_the_same_request_id_twice_makes_two_lines(gateway: Gateway) -> None:
    for _ in range(2):
        request(gateway.url, path="/api/tags", headers={**bearer(TOKEN), "X-Request-Id": "twice"})

    def lines() -> list[dict[str, Any]]:
        return [line for line in gateway.log_lines("access") if line["id"] == "twice"]

    wait_until(lambda: len(lines()) == 2, 5, lambda: f"{lines()}")
