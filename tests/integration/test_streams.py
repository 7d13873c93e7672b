"""Streams of every face: their frames, headers, heartbeats and memory, and
uploads that pass through."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.rig import NDJSON
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
    each_face,
    each_native,
    each_sse,
    error_text,
    growth_kib,
    is_well_ended,
    last_error,
    resident_kib,
    warm_up,
    whole,
)
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import (
    Chunk,
    FaultUpstream,
    Flood,
    Head,
    Json,
    Lines,
    NoReadBody,
    ScriptedServer,
    Send,
    Wait,
    WaitFor,
    WaitForPeerClose,
)
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, bearer, encode_request, open_stream, raw
from tests.rig.stalls import seconds_without_stalls
from tests.rig.uploads import MIB, Hash, send_upload

pytestmark = pytest.mark.slow

HEARTBEAT_S = 0.8
LIMIT_S = 3.5
#: how late a heartbeat may come
LATE_S = 1.2
DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """A gateway with a fast heartbeat."""
    limits = {"first_byte_s": LIMIT_S, "idle_s": LIMIT_S}
    unsaid = ("Traceback", "internal_error")
    with checked_gateway(
        shared_upstream,
        TOKEN,
        warm=warm_up,
        unsaid=unsaid,
        stream={"heartbeat_s": HEARTBEAT_S},
        timeouts=limits,
    ) as gateway:
        yield gateway


# --- Error frames ---------------------------------------------------------------------------------

BOOM = {"error": "boom"}
#: How the last data of a stream says that the fault was not the client's.
FAULTS = {
    "/v1/chat/completions": b'{"error":{"message":"boom","type":"server_error","param":null,"code":null}}',
    "/v1/completions": b'{"error":{"message":"boom","type":"server_error","param":null,"code":null}}',
    "/v1/messages": b'{"type":"error","error":{"type":"api_error","message":"boom"}}',
    "/v1/responses": b'{"type":"response.failed","response":{',
}


@each_native
def test_U9_error_in_a_native_stream_is_passed_on_and_ends_it(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [Lines([face.line, BOOM])])
    answer = whole(gateway, face, request_id)
    first, second = answer.body.splitlines(keepends=True)
    assert (answer.status, answer.complete) == (200, True)
    assert json.loads(first) == face.line
    assert second == b'{"error":"boom"}\n'
    assert access_line(gateway, request_id)["state"] == "upstream_error"


@each_sse
@pytest.mark.parametrize("apart", [True, False], ids=["later", "same packet"])
def test_U9_error_in_a_stream_is_a_frame_without_a_good_end(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face, apart: bool
) -> None:
    lines = [json.dumps(face.line).encode() + b"\n", b'{"error":"boom"}\n']
    upstream.script(
        face.upstream_path,
        [Lines(lines, delay_s=0.1)] if apart else [Head(), Chunk(b"".join(lines))],
    )
    answer = whole(gateway, face, request_id)
    assert (answer.status, answer.complete) == (200, True)
    assert b"Hel" in answer.body
    assert last_error(answer.body, face) == "boom"
    assert (
        answer.body.rstrip().splitlines()[-1].removeprefix(b"data: ").startswith(FAULTS[face.path])
    )
    assert access_line(gateway, request_id)["state"] == "upstream_error"


@each_face
def test_stream_without_done_ends_with_an_error(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [Lines([face.line, face.line])])
    answer = whole(gateway, face, request_id)
    assert last_error(answer.body, face)
    assert access_line(gateway, request_id)["error"] == "upstream_cut"


@each_sse
def test_single_answer_without_done_is_502(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Json({**face.line, "done": False})])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, bool(error_text(answer, face))) == (502, True)


@each_sse
def test_single_answer_that_is_an_error_is_no_answer(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Json(BOOM)])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, error_text(answer, face)) == (500, "boom")


@each_face
def test_error_before_the_first_byte_keeps_its_status(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Json({"error": "model 'm' not found"}, 404)])
    answer = whole(gateway, face)
    assert answer.status == 404
    assert answer.headers.get("X-Accel-Buffering") is None
    assert error_text(answer, face) == "model 'm' not found"
    if face.dialect == "openai":
        assert answer.json()["error"]["code"] == "model_not_found"
    if face.dialect == "native":
        assert answer.body == b'{"error":"model \'m\' not found"}'


@each_sse
def test_error_as_the_first_line_still_gets_a_status(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Lines([BOOM])])
    answer = whole(gateway, face)
    assert (answer.status, error_text(answer, face)) == (500, "boom")


@each_sse
@pytest.mark.parametrize("status", [404, 500])
def test_error_after_a_heartbeat_is_a_frame(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face, status: int
) -> None:
    upstream.script(
        face.upstream_path, [Wait(2.5 * HEARTBEAT_S), Json({"error": "no such model"}, status)]
    )
    answer = whole(gateway, face, request_id)
    assert (answer.status, face.stream.heartbeat in answer.body) == (200, True)
    assert last_error(answer.body, face) == "no such model"
    assert b"Hel" not in answer.body
    assert access_line(gateway, request_id)["state"] == (
        "refused" if status < 500 else "upstream_error"
    )


#: What the first heartbeat brings with it: official clients take nothing before it.
OPENINGS = {
    "/v1/messages": [b"event: message_start"],
    "/v1/responses": [b"event: response.created", b"event: response.in_progress"],
}


def assert_first_heartbeat(data: bytes, face: Face) -> None:
    *opening, heartbeat, end = data.split(face.stream.separator)
    assert [frame.split(b"\n")[0] for frame in opening] == OPENINGS.get(face.path, [])
    assert (heartbeat + face.stream.separator, end) == (face.stream.heartbeat, b"")


# --- Heartbeats -----------------------------------------------------------------------------------


@each_sse
@pytest.mark.parametrize(
    "before", [(), (Head(200, NDJSON),)], ids=["before the head", "before the first token"]
)
def test_heartbeats_come_before_the_first_token(
    gateway: Gateway, upstream: FaultUpstream, face: Face, before: tuple[Head, ...]
) -> None:
    upstream.script(
        face.upstream_path, [*before, Wait(2.5 * HEARTBEAT_S), Lines([{**face.line, **DONE}])]
    )
    began = time.monotonic()
    with ask(gateway.url, face) as stream:
        assert_first_heartbeat(stream.read_some(), face)
        assert time.monotonic() - began < HEARTBEAT_S + LATE_S
        assert stream.headers.get("Content-Type") == "text/event-stream"
        assert is_well_ended(stream.read_all(), face)


@each_sse
def test_heartbeats_come_between_tokens(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(
        face.upstream_path, [Lines([face.line, {**face.line, **DONE}], delay_s=3.5 * HEARTBEAT_S)]
    )
    with ask(gateway.url, face) as stream:
        lines = list(stream.lines())
    spoken = next(number for number, line in enumerate(lines) if b"Hel" in line.data)
    beat = face.stream.heartbeat.splitlines()[0]
    arrived = [line.at for line in lines[spoken:] if line.data == beat]
    assert 2 <= len(arrived) <= 4
    assert all(
        later - earlier < HEARTBEAT_S + LATE_S
        for earlier, later in zip(arrived, arrived[1:], strict=False)
    )


@each_native
def test_native_streams_have_no_heartbeats(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    lines = [face.line, {**face.line, **DONE}]
    upstream.script(
        face.upstream_path, [Wait(1.5 * HEARTBEAT_S), Lines(lines, delay_s=1.5 * HEARTBEAT_S)]
    )
    assert [json.loads(line) for line in whole(gateway, face).body.splitlines()] == lines


@each_sse
def test_single_answers_have_no_heartbeats(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Wait(1.5 * HEARTBEAT_S), Json({**face.line, **DONE})])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, "Hel" in json.dumps(answer.json())) == (200, True)
    assert face.stream.heartbeat not in answer.body


@each_sse
def test_heartbeats_do_not_stretch_the_first_byte_limit(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    began = time.monotonic()
    answer = whole(gateway, face, request_id)
    assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 5
    assert answer.status == 200
    assert "did not begin to answer" in last_error(answer.body, face)
    assert access_line(gateway, request_id)["state"] == "timeout"


@each_sse
def test_heartbeats_do_not_stretch_the_idle_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(
        face.upstream_path,
        [Head(), Chunk(json.dumps(face.line).encode() + b"\n"), WaitForPeerClose()],
    )
    began = time.monotonic()
    answer = whole(gateway, face)
    assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 5
    assert "was silent for" in last_error(answer.body, face)


@each_sse
def test_client_that_leaves_between_heartbeats_is_noticed(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    stream = ask(gateway.url, face, request_id)
    assert_first_heartbeat(stream.read_some(), face)
    left_at = time.monotonic()
    stream.close()
    assert (
        upstream.wait_peer_closed(upstream.wait_for_request(1, face.upstream_path).connection)
        - left_at
        < 1
    )
    assert access_line(gateway, request_id)["state"] == "client_gone"


# --- Headers and delivery -------------------------------------------------------------------------


@each_face
def test_streams_are_neither_buffered_nor_stored(gateway: Gateway, face: Face) -> None:
    answer = whole(gateway, face)
    assert answer.headers.get("X-Accel-Buffering") == "no"
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert answer.headers.get("Content-Length") is None


@each_face
def test_caching_headers_of_the_upstream_have_no_say(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    head = Head(200, {**NDJSON, "Cache-Control": "public, max-age=600", "X-Accel-Buffering": "yes"})
    upstream.script(
        face.upstream_path, [head, Chunk(json.dumps({**face.line, **DONE}).encode() + b"\n")]
    )
    answer = whole(gateway, face)
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert answer.headers.get_all("X-Accel-Buffering") == ["no"]


@each_face
def test_single_answers_are_not_stored(gateway: Gateway, face: Face) -> None:
    answer = whole(gateway, face, stream=False)
    assert answer.headers.get("Cache-Control") == "no-store"
    assert int(answer.headers.get("Content-Length") or 0) == len(answer.body) > 0


@each_face
def test_every_token_arrives_before_the_next_is_sent(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    goes_on = [threading.Event(), threading.Event()]
    upstream.script(
        face.upstream_path,
        [
            Lines([face.line]),
            WaitFor(goes_on[0], 10),
            Lines([face.line]),
            WaitFor(goes_on[1], 10),
            Lines([{**face.line, **DONE}]),
        ],
    )
    with ask(gateway.url, face) as stream:
        for each in goes_on:
            while b"Hel" not in (read := stream.read_some(5)):
                assert read, "the stream has ended"
            each.set()
        assert is_well_ended(stream.read_all(), face)


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


# --- Interim and early answers --------------------------------------------------------------------


@each_face
@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]
)
def test_interim_answers_are_not_the_answer(
    gateway: Gateway, upstream: FaultUpstream, face: Face, interim: bytes
) -> None:
    upstream.script(
        face.upstream_path,
        [Send(interim), Wait(0.05), Send(interim), Lines([{**face.line, **DONE}])],
    )
    answer = whole(gateway, face)
    assert (answer.status, answer.headers.get("Link")) == (200, None)
    assert "Hel" in answer.text


def test_refusal_of_a_body_that_is_still_being_sent_arrives(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [NoReadBody(), Json({"error": "too large"}, 413)])
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000_000}]}
    answer = gateway.ask("/api/chat", body)
    assert (answer.status, answer.json()) == (413, {"error": "too large"})


@pytest.mark.parametrize("face", ["/api/version", "/api/tags"])
def test_head_passes_and_has_no_body(gateway: Gateway, upstream: FaultUpstream, face: str) -> None:
    upstream.script(
        face,
        [Head(200, {"Content-Type": "application/json", "Content-Length": "500"}, chunked=False)],
    )
    answer = gateway.ask(face, method="HEAD")
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    assert upstream.wait_for_request(1, face).method == "HEAD"


@pytest.mark.parametrize("status", [200, 404])
def test_head_of_a_blob_keeps_its_status(
    gateway: Gateway, upstream: FaultUpstream, status: int
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [Head(status, {"Content-Length": "0"}, chunked=False)])
    answer = gateway.ask(f"/api/blobs/{DIGEST}", method="HEAD")
    assert (answer.status, answer.body) == (status, b"")


def test_answer_without_a_body_passes(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [Head(204, chunked=False)])
    answer = gateway.ask(f"/api/blobs/{DIGEST}", b"x")
    assert (answer.status, answer.body, answer.complete) == (204, b"", True)


def test_trailers_are_passed_over(gateway: Gateway, upstream: FaultUpstream) -> None:
    end = json.dumps({**CHAT_LINE, **DONE}).encode() + b"\n"
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    )
    upstream.script(
        "/api/chat", [Send(head + b"%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(end), end))]
    )
    answer = whole(gateway, FACES["native chat"])
    assert (answer.body, answer.headers.get("X-Sum"), answer.complete) == (end, None, True)


# --- Uploads --------------------------------------------------------------------------------------


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
    left_at = time.monotonic()
    stream.close()
    assert seconds_without_stalls(left_at, upstream.wait_peer_closed(connection)) < 1
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
