"""Connect, first-byte, idle and total limits: each of them ends what the others would let go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.rig import NDJSON, chunk
from tests.rig.boxes import black_hole
from tests.rig.calls import (
    CHAT_LINE,
    EMBEDDINGS,
    FACES,
    MESSAGES,
    TOKEN,
    Face,
    access_line,
    ask,
    config,
    each_dialect,
    each_face,
    each_single,
    error_text,
    last_error,
    warm_up,
)
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import Chunk, Drip, FaultUpstream, Head, Lines, NoReadBody, Send, Wait, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, request

CONNECT_S, FIRST_BYTE_S, IDLE_S, TOTAL_S = 1.0, 0.6, 0.5, 1.2
#: how much later than its limit a call may end
GRACE_S = 1.0
LIMITS = {"connect_s": CONNECT_S, "first_byte_s": FIRST_BYTE_S, "idle_s": IDLE_S, "total_s": TOTAL_S}
SINGLES = {"native chat": FACES["native chat"], "openai embeddings": EMBEDDINGS["openai embeddings"]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    unsaid = ("Traceback",)
    with checked_gateway(
        config(shared_upstream.url, timeouts=LIMITS), shared_upstream, TOKEN, warm=warm_up, unsaid=unsaid
    ) as gateway:
        yield gateway


def named(what: str, face: Face) -> str:
    """A request id that tells one case from the others."""
    return what + face.path.replace("/", ".")


def whole(stream: Stream) -> Answer:
    """All of an answer; the stream is closed."""
    with stream:
        body = stream.read_all(10)
        return Answer(stream.status, stream.headers, body, stream.complete)


def timed(ask_now: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = ask_now()
    return answer, time.monotonic() - began


@each_single
def test_U3_silent_upstream_is_504_after_the_first_byte_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    answer, seconds = timed(lambda: whole(ask(gateway.url, face, named("silent", face), stream=False)))
    assert (answer.status, FIRST_BYTE_S <= seconds < FIRST_BYTE_S + GRACE_S) == (504, True)
    assert "did not begin to answer in 0.6 s" in error_text(answer, face)
    line = access_line(gateway, named("silent", face))
    assert (line["state"], line["error"], line["status"]) == ("timeout", "upstream_timeout", 504)
    upstream.wait_event("peer_closed", upstream.wait_for_request(1, face.upstream_path).connection)


@each_face
def test_U3_silent_stream_is_504_too(gateway: Gateway, upstream: FaultUpstream, face: Face) -> None:
    upstream.script(face.upstream_path, [WaitForPeerClose()])
    answer, seconds = timed(lambda: whole(ask(gateway.url, face)))
    assert (answer.status, FIRST_BYTE_S <= seconds < FIRST_BYTE_S + GRACE_S) == (504, True)
    assert answer.headers.get("Content-Type", "").startswith("application/json")
    assert error_text(answer, face)


@each_face
def test_U4_head_without_a_body_is_504_after_the_idle_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Head(200, NDJSON), WaitForPeerClose()])
    answer, seconds = timed(lambda: whole(ask(gateway.url, face)))
    assert (answer.status, IDLE_S <= seconds < IDLE_S + GRACE_S) == (504, True)
    assert "silent for 0.5 s" in error_text(answer, face)


@each_face
def test_U4_silence_between_tokens_ends_the_stream_with_an_error(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(
        face.upstream_path, [Head(200, NDJSON), Chunk(json.dumps(face.line).encode() + b"\n"), WaitForPeerClose()]
    )
    answer, seconds = timed(lambda: whole(ask(gateway.url, face, named("idle", face))))
    assert (answer.status, IDLE_S <= seconds < IDLE_S + GRACE_S) == (200, True)
    assert "silent for 0.5 s" in last_error(answer.body, face)
    assert access_line(gateway, named("idle", face))["state"] == "timeout"


@each_dialect
def test_U5_dripping_head_does_not_stretch_the_first_byte_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Drip(HEAD, 0.1)])
    answer, seconds = timed(lambda: whole(ask(gateway.url, face)))
    assert (answer.status, seconds < FIRST_BYTE_S + GRACE_S) == (504, True)


@each_dialect
def test_U5_dripping_body_does_not_stretch_the_total_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    drip = chunk(json.dumps({**face.line, "padding": "x" * 200}).encode() + b"\n")
    upstream.script(face.upstream_path, [Head(200, NDJSON), Drip(drip, 0.03)])
    answer, seconds = timed(lambda: whole(ask(gateway.url, face, named("drip", face))))
    assert TOTAL_S - 0.1 <= seconds < TOTAL_S + GRACE_S
    assert "longer than 1.2 s in all" in (
        last_error(answer.body, face) if answer.status == 200 else error_text(answer, face)
    )
    assert access_line(gateway, named("drip", face))["state"] == "timeout"


@each_dialect
def test_U6_stream_without_end_is_ended_at_the_total_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(face.upstream_path, [Lines([face.line] * 100, delay_s=0.1)])
    answer, seconds = timed(lambda: whole(ask(gateway.url, face, named("endless", face))))
    assert (answer.status, TOTAL_S - 0.1 <= seconds < TOTAL_S + GRACE_S) == (200, True)
    assert "longer than 1.2 s in all" in last_error(answer.body, face)
    assert access_line(gateway, named("endless", face))["state"] == "timeout"
    upstream.wait_event("peer_closed", upstream.wait_for_request(1, face.upstream_path).connection)


@pytest.mark.parametrize("face", SINGLES.values(), ids=SINGLES)
def test_U5_dripping_single_answer_ends_at_the_total_limit(
    gateway: Gateway, upstream: FaultUpstream, face: Face
) -> None:
    upstream.script(
        face.upstream_path, [Send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"), Drip(b" " * 500, 0.1)]
    )
    answer, seconds = timed(lambda: whole(ask(gateway.url, face, stream=False)))
    assert (answer.status, seconds < TOTAL_S + GRACE_S) == (504, True)
    assert "1.2 s in all" in error_text(answer, face)


def test_upstream_that_does_not_take_the_request_is_504(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [NoReadBody(), Wait(10)])
    big = Face("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000_000}]}, "", {})
    answer, seconds = timed(lambda: whole(ask(gateway.url, big)))
    assert (answer.status, seconds < TOTAL_S + GRACE_S) == (504, True)


def test_slow_but_steady_tokens_are_no_idle_stream(gateway: Gateway, upstream: FaultUpstream) -> None:
    end = {**CHAT_LINE, "done": True, "done_reason": "stop"}
    upstream.script("/api/chat", [Wait(0.3), Lines([CHAT_LINE, CHAT_LINE, end], delay_s=0.3)])
    answer, seconds = timed(lambda: whole(ask(gateway.url, FACES["openai chat"])))
    assert seconds > FIRST_BYTE_S
    assert answer.body.endswith(b"data: [DONE]\n\n")


# --- Connecting ------------------------------------------------------------------------------------------------------


def test_U2_black_hole_is_503_after_the_connect_limit(gateway_for: Callable[..., Gateway]) -> None:
    face = FACES["openai chat"]
    with black_hole() as port:
        gateway = gateway_for(config(f"http://127.0.0.1:{port}", timeouts=LIMITS))
        answer, seconds = timed(lambda: whole(ask(gateway.url, face, "hole")))
    assert (answer.status, CONNECT_S - 0.1 <= seconds < CONNECT_S + GRACE_S) == (503, True)
    assert answer.json()["error"]["message"].startswith("Failed to connect to Ollama service")
    assert access_line(gateway, "hole")["error"] == "upstream_unreachable"
    assert request(gateway.url, path="/livez").status == 200
    assert request(gateway.url, path="/readyz").status == 503


def test_limits_of_an_upstream_count_before_the_general_ones(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    own = {"name": "box1", "kind": "ollama", "base_url": fault_upstream.url, "timeouts": {"first_byte_s": 0.5}}
    gateway = gateway_for({"auth": {"generate_tokens": [TOKEN]}, "upstreams": [own], "timeouts": {"first_byte_s": 30}})
    fault_upstream.script("/api/chat", [WaitForPeerClose()])
    body = {"model": "m", "messages": MESSAGES}
    answer, seconds = timed(lambda: request(gateway.url, "POST", "/api/chat", body, bearer(TOKEN)))
    assert (answer.status, 0.5 <= seconds < 0.5 + GRACE_S) == (504, True)
