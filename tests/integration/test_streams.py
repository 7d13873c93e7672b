"""Streams and uploads of a real server: their memory, and what happens on connections. Frames,
headers and heartbeats are in tests/app/test_streams.py."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.rig.calls import (
    CHAT_LINE,
    DIGEST,
    FACES,
    MESSAGES,
    TOKEN,
    Face,
    access_line,
    ask,
    config,
    each_dialect,
    growth_kib,
    resident_kib,
    warm_up,
    whole,
)
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import (
    FaultUpstream,
    Flood,
    Head,
    Json,
    Lines,
    NoReadBody,
    ScriptedServer,
    Send,
    WaitForPeerClose,
)
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, encode_request, open_stream, raw
from tests.rig.uploads import MIB, Hash, send_upload

pytestmark = pytest.mark.slow

DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    unsaid = ("Traceback", "internal_error")
    with checked_gateway(shared_upstream, TOKEN, warm=warm_up, unsaid=unsaid, workers=1) as gateway:
        yield gateway


# --- Memory ---------------------------------------------------------------------------------------


@each_dialect
def test_U29_memory_stays_flat_when_the_answer_is_faster_than_the_client(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    line = (
        json.dumps({**CHAT_LINE, "message": {"role": "assistant", "content": "x" * 4000}}).encode()
        + b"\n"
    )
    upstream.script("/api/chat", [Flood(line, limit_s=30)])
    with ask(gateway.url, face, receive_buffer=65536) as stream:
        read_for(stream, 1)
        before = {pid: resident_kib(pid) for pid in gateway.worker_pids()}
        read_for(stream, 2)
        assert growth_kib(gateway, before) < 10_000


def read_for(stream: Stream, seconds: float) -> None:
    """Read slowly: about 3 MB/s."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        stream.read_some()
        time.sleep(0.02)


# --- Uploads --------------------------------------------------------------------------------------


def test_refusal_of_a_body_that_is_still_being_sent_arrives(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [NoReadBody(), Json({"error": "too large"}, 413)])
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000_000}]}
    answer = gateway.ask("/api/chat", body)
    assert (answer.status, answer.json()) == (413, {"error": "too large"})


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
def test_large_upload_passes_through_with_flat_memory(
    gateway: Gateway, upstream: FaultUpstream, sized: bool
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [NoReadBody(), Hash()])
    before = {pid: resident_kib(pid) for pid in gateway.worker_pids()}
    highest = 0

    def parts() -> Iterator[bytes]:
        nonlocal highest
        for number in range(200):
            if number % 20 == 0:
                highest = max(highest, growth_kib(gateway, before))
            yield MIB

    answer = send_upload(
        gateway.url, f"/api/blobs/{DIGEST}", TOKEN, parts(), 200 << 20 if sized else None
    )
    digest = hashlib.sha256()
    for _ in range(200):
        digest.update(MIB)
    assert answer.status == 201
    assert answer.json() == {"size": 200 << 20, "sha256": digest.hexdigest()}
    assert max(highest, growth_kib(gateway, before)) < 20_000


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
def test_framing_of_an_upload_is_kept(
    gateway: Gateway, upstream: FaultUpstream, sized: bool
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [Head(201, {"Content-Length": "0"}, chunked=False)])
    assert (
        send_upload(
            gateway.url, f"/api/blobs/{DIGEST}", TOKEN, [b"ab", b"cd"], 4 if sized else None
        ).status
        == 201
    )
    seen = upstream.wait_for_request(1, f"/api/blobs/{DIGEST}")
    framing = (seen.header("content-length"), seen.header("transfer-encoding"))
    assert (seen.body, framing) == (b"abcd", ("4", None) if sized else (None, "chunked"))


def test_refusal_of_an_upload_in_progress_arrives(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [NoReadBody(), Json({"error": "disk full"}, 507)])
    headers = [*bearer(TOKEN).items(), ("Content-Length", str(50_000_000))]
    with open_stream(
        gateway.url, "POST", f"/api/blobs/{DIGEST}", None, headers, wait_for_head=False
    ) as stream:
        sent = 0
        while sent < 20_000_000 and not _can_read(stream):
            stream.sock.sendall(MIB)
            sent += len(MIB)
        assert (stream.status, stream.read_all()) == (507, b'{"error":"disk full"}')
    assert gateway.ask("/api/chat", FACES["native chat"].body).status == 200


def _can_read(stream: Stream) -> bool:
    stream.sock.settimeout(0.02)
    try:
        return stream._receive(0.02)
    except TimeoutError:
        return False
    finally:
        stream.sock.settimeout(10)


@pytest.mark.parametrize(
    ("framing", "sent"),
    [(("Content-Length", "10"), b"123"), (("Transfer-Encoding", "chunked"), b"3\r\n123\r\n")],
    ids=["sized", "chunked"],
)
def test_upload_that_stops_is_never_a_whole_one(
    gateway: Gateway, upstream: FaultUpstream, framing: tuple[str, str], sent: bytes
) -> None:
    headers = [*bearer(TOKEN).items(), framing]
    head = encode_request(
        f"127.0.0.1:{gateway.port}", "POST", f"/api/blobs/{DIGEST}", None, headers
    )
    raw(gateway.port, head + sent, half_close=True)
    assert not upstream.wait_for_request(1, f"/api/blobs/{DIGEST}").complete


def test_client_that_waits_for_100_is_told_to_go_on(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [Head(201, {"Content-Length": "0"}, chunked=False)])
    headers = [*bearer(TOKEN).items(), ("Expect", "100-continue"), ("Content-Length", "4")]
    with open_stream(
        gateway.url, "POST", f"/api/blobs/{DIGEST}", None, headers, wait_for_head=False
    ) as stream:
        assert stream.sock.recv(100).startswith(b"HTTP/1.1 100 ")
        stream.sock.sendall(b"abcd")
        assert stream.status == 201
    assert upstream.wait_for_request(1, f"/api/blobs/{DIGEST}").body == b"abcd"


# --- Connections of clients -----------------------------------------------------------------------


def test_connection_of_a_client_serves_one_request_after_another(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Lines([{**CHAT_LINE, **DONE}])])
    one = encode_request(
        "x",
        "POST",
        "/api/chat",
        {"model": "m", "messages": MESSAGES},
        {**bearer(TOKEN), "Connection": "keep-alive"},
    )
    answer = raw(gateway.port, one * 3, quiet_s=0.5)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b'"done":true') == 3


def test_client_that_leaves_behind_pipelined_bytes_is_noticed(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/chat", [WaitForPeerClose()])
    stream = ask(gateway.url, FACES["native chat"], request_id, wait_for_head=False)
    connection = upstream.wait_for_request(1, "/api/chat").connection
    stream.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    stream.close()
    upstream.wait_peer_closed(connection)
    assert access_line(gateway, request_id)["state"] == "client_gone"


def test_nothing_of_an_upstream_that_floods_before_its_head_is_kept(
    gateway_for: Callable[..., Gateway],
) -> None:
    with ScriptedServer() as upstream:
        upstream.script("/api/chat", [Send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5_000_000)])
        gateway = gateway_for(config(upstream.url), workers=1)
        before = {pid: resident_kib(pid) for pid in gateway.worker_pids()}
        for _ in range(5):
            assert whole(gateway, FACES["openai chat"], stream=False).status == 502
        assert growth_kib(gateway, before) < 10_000
