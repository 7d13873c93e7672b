"""Streams of every face: their frames, headers and heartbeats. Memory, uploads and connections are
in tests/integration/test_streams.py."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.rig import NDJSON
from tests.rig.calls import (
    CHAT_LINE,
    DIGEST,
    FACES,
    Face,
    access_line,
    config,
    each_face,
    each_native,
    each_sse,
    error_text,
    is_well_ended,
    last_error,
    start,
    whole,
)
from tests.rig.fault_upstream import (
    Chunk,
    FaultUpstream,
    Head,
    Json,
    Lines,
    Send,
    Wait,
    WaitFor,
    WaitForPeerClose,
)
from tests.rig.http_client import Stream
from tests.rig.local import LocalGateway

HEARTBEAT_S = 0.1
LIMIT_S = 0.35
DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


def open_gateway(
    upstream: FaultUpstream, *, over_sockets: bool = False, **timeouts: float
) -> LocalGateway:
    """A gateway with a fast heartbeat."""
    settings = config(upstream.url, stream={"heartbeat_s": HEARTBEAT_S}, timeouts=timeouts)
    return LocalGateway(settings, over_sockets=over_sockets)


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    with open_gateway(shared_upstream) as running:
        yield running
        assert not running.events("internal_error")


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
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: Face
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
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: Face, apart: bool
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
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [Lines([face.line, face.line])])
    answer = whole(gateway, face, request_id)
    assert last_error(answer.body, face)
    assert access_line(gateway, request_id)["error"] == "upstream_cut"


@each_sse
def test_single_answer_without_done_is_502(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Json({**face.line, "done": False})])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, bool(error_text(answer, face))) == (502, True)


@each_sse
def test_single_answer_that_is_an_error_is_no_answer(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Json(BOOM)])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, error_text(answer, face)) == (500, "boom")


@each_face
def test_error_before_the_first_byte_keeps_its_status(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
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
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Lines([BOOM])])
    answer = whole(gateway, face)
    assert (answer.status, error_text(answer, face)) == (500, "boom")


@each_sse
@pytest.mark.parametrize("status", [404, 500])
def test_error_after_a_heartbeat_is_a_frame(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: Face, status: int
) -> None:
    go = threading.Event()
    upstream.script(face.upstream_path, [WaitFor(go), Json({"error": "no such model"}, status)])
    with start(gateway, face, request_id) as stream:
        body = read_until(stream, face.stream.heartbeat)
        go.set()
        body += stream.read_all()
    assert stream.status == 200
    assert last_error(body, face) == "no such model"
    assert b"Hel" not in body
    assert access_line(gateway, request_id)["state"] == (
        "refused" if status < 500 else "upstream_error"
    )


def read_until(stream: Stream, text: bytes) -> bytes:
    """What the client gets, up to the piece with this text."""
    read = b""
    while text not in read:
        data = stream.read_some()
        assert data, f"no {text!r} in {read!r}"
        read += data
    return read


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
    gateway: LocalGateway, upstream: FaultUpstream, face: Face, before: tuple[Head, ...]
) -> None:
    go = threading.Event()
    upstream.script(face.upstream_path, [*before, WaitFor(go), Lines([{**face.line, **DONE}])])
    with start(gateway, face) as stream:
        assert_first_heartbeat(stream.read_some(), face)
        assert stream.headers.get("Content-Type") == "text/event-stream"
        go.set()
        assert is_well_ended(stream.read_all(), face)


@each_sse
def test_heartbeats_come_between_tokens(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    go = threading.Event()
    upstream.script(
        face.upstream_path, [Lines([face.line]), WaitFor(go), Lines([{**face.line, **DONE}])]
    )
    began = time.monotonic()
    with start(gateway, face) as stream:
        read_until(stream, b"Hel")
        for _ in range(3):
            read_until(stream, face.stream.heartbeat)
        assert time.monotonic() - began >= 2 * HEARTBEAT_S
        go.set()
        assert is_well_ended(stream.read_all(), face)


@each_native
def test_native_streams_have_no_heartbeats(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    lines = [face.line, {**face.line, **DONE}]
    upstream.script(
        face.upstream_path, [Wait(1.5 * HEARTBEAT_S), Lines(lines, delay_s=1.5 * HEARTBEAT_S)]
    )
    assert [json.loads(line) for line in whole(gateway, face).body.splitlines()] == lines


@each_sse
def test_single_answers_have_no_heartbeats(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Wait(1.5 * HEARTBEAT_S), Json({**face.line, **DONE})])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, "Hel" in json.dumps(answer.json())) == (200, True)
    assert face.stream.heartbeat not in answer.body


@each_sse
def test_heartbeats_do_not_stretch_the_first_byte_limit(
    upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    with open_gateway(upstream, first_byte_s=LIMIT_S) as gateway:
        answer = whole(gateway, face, request_id)
        assert (answer.status, face.stream.heartbeat in answer.body) == (200, True)
        assert "did not begin to answer" in last_error(answer.body, face)
        assert access_line(gateway, request_id)["state"] == "timeout"


@each_sse
def test_heartbeats_do_not_stretch_the_idle_limit(upstream: FaultUpstream, face: Face) -> None:
    upstream.script(
        face.upstream_path,
        [Head(), Chunk(json.dumps(face.line).encode() + b"\n"), WaitForPeerClose()],
    )
    with open_gateway(upstream, idle_s=LIMIT_S) as gateway:
        answer = whole(gateway, face)
    assert face.stream.heartbeat in answer.body
    assert "was silent for" in last_error(answer.body, face)


@each_sse
def test_client_that_leaves_between_heartbeats_is_noticed(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    with start(gateway, face, request_id) as stream:
        assert_first_heartbeat(stream.read_some(), face)
    upstream.wait_peer_closed(upstream.wait_for_request(1, face.upstream_path).connection)
    assert access_line(gateway, request_id)["state"] == "client_gone"


# --- Headers and delivery -------------------------------------------------------------------------


@each_face
def test_streams_are_neither_buffered_nor_stored(gateway: LocalGateway, face: Face) -> None:
    answer = whole(gateway, face)
    assert answer.headers.get("X-Accel-Buffering") == "no"
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert answer.headers.get("Content-Length") is None


@each_face
def test_caching_headers_of_the_upstream_have_no_say(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
) -> None:
    head = Head(200, {**NDJSON, "Cache-Control": "public, max-age=600", "X-Accel-Buffering": "yes"})
    upstream.script(
        face.upstream_path, [head, Chunk(json.dumps({**face.line, **DONE}).encode() + b"\n")]
    )
    answer = whole(gateway, face)
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert answer.headers.get_all("X-Accel-Buffering") == ["no"]


@each_face
def test_single_answers_are_not_stored(gateway: LocalGateway, face: Face) -> None:
    answer = whole(gateway, face, stream=False)
    assert answer.headers.get("Cache-Control") == "no-store"
    assert int(answer.headers.get("Content-Length") or 0) == len(answer.body) > 0


@each_face
def test_every_token_arrives_before_the_next_is_sent(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face
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
    with start(gateway, face) as stream:
        for each in goes_on:
            read_until(stream, b"Hel")
            each.set()
        assert is_well_ended(stream.read_all(), face)


# --- Interim and early answers --------------------------------------------------------------------


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]
)
def test_interim_answers_are_not_the_answer(upstream: FaultUpstream, interim: bytes) -> None:
    face = FACES["openai chat"]
    upstream.script(
        face.upstream_path,
        [Send(interim), Wait(0.05), Send(interim), Lines([{**face.line, **DONE}])],
    )
    with open_gateway(upstream, over_sockets=True) as gateway:
        answer = whole(gateway, face)
    assert (answer.status, answer.headers.get("Link")) == (200, None)
    assert "Hel" in answer.text


@pytest.mark.parametrize("face", ["/api/version", "/api/tags"])
def test_head_passes_and_has_no_body(
    gateway: LocalGateway, upstream: FaultUpstream, face: str
) -> None:
    upstream.script(
        face,
        [Head(200, {"Content-Type": "application/json", "Content-Length": "500"}, chunked=False)],
    )
    answer = gateway.ask(face, method="HEAD")
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    assert upstream.wait_for_request(1, face).method == "HEAD"


@pytest.mark.parametrize("status", [200, 404])
def test_head_of_a_blob_keeps_its_status(
    gateway: LocalGateway, upstream: FaultUpstream, status: int
) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [Head(status, {"Content-Length": "0"}, chunked=False)])
    answer = gateway.ask(f"/api/blobs/{DIGEST}", method="HEAD")
    assert (answer.status, answer.body) == (status, b"")


def test_answer_without_a_body_passes(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script(f"/api/blobs/{DIGEST}", [Head(204, chunked=False)])
    answer = gateway.ask(f"/api/blobs/{DIGEST}", b"x")
    assert (answer.status, answer.body, answer.complete) == (204, b"", True)


def test_trailers_are_passed_over(upstream: FaultUpstream) -> None:
    end = json.dumps({**CHAT_LINE, **DONE}).encode() + b"\n"
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    )
    upstream.script(
        "/api/chat", [Send(head + b"%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(end), end))]
    )
    with open_gateway(upstream, over_sockets=True) as gateway:
        answer = whole(gateway, FACES["native chat"])
    assert (answer.body, answer.headers.get("X-Sum"), answer.complete) == (end, None, True)
