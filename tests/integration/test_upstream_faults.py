"""What an upstream can do wrong, and what of it a client may see: an honest error, once,
and never a good end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig import NDJSON, chunk
from tests.rig.calls import (
    CHAT_LINE,
    FACES,
    TOKEN,
    Face,
    access_line,
    config,
    each_dialect,
    each_face,
    each_single,
    each_sse,
    error_text,
    is_well_ended,
    warm_up,
    whole,
)
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    FaultUpstream,
    Head,
    Json,
    ScriptedServer,
    Send,
    Whole,
)
from tests.rig.gateway import Gateway
from tests.rig.http_client import request

JSON = {"Content-Type": "application/json"}
DONE = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    unsaid = ("Traceback", "internal_error")
    with checked_gateway(shared_upstream, TOKEN, warm=warm_up, unsaid=unsaid) as gateway:
        yield gateway


def encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def arrivals(upstream: FaultUpstream, path: str) -> int:
    """How many requests for a path have reached the upstream."""
    return sum(seen.path == path for seen in upstream.requests)


# --- Not there ------------------------------------------------------------------------------------


def test_upstream_that_comes_back_is_used_at_once(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.refuse()
    assert whole(gateway, FACES["openai chat"], stream=True).status == 503
    wait_until(
        lambda: request(gateway.url, path="/readyz").status == 503,
        5,
        "still ready without its upstream",
    )
    assert request(gateway.url, path="/livez").status == 200
    upstream.restart()
    assert whole(gateway, FACES["openai chat"], stream=True).body.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: request(gateway.url, path="/readyz").status == 200, 5, "not ready again")


# --- Refusals and wrong answers -------------------------------------------------------------------


@each_single
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503, 504])
def test_refusal_keeps_its_status_and_text(
    gateway: Gateway, upstream: FaultUpstream, face: Face, status: int
) -> None:
    upstream.script(face.upstream_path, [Json({"error": "no can do"}, status)])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, error_text(answer, face)) == (status, "no can do")
    assert arrivals(upstream, face.upstream_path) == 1


@pytest.mark.parametrize("stream", [True, False])
@each_dialect
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_of_the_upstream_is_passed_on(
    gateway: Gateway, upstream: FaultUpstream, status: int, face: Face, stream: bool
) -> None:
    upstream.script("/api/chat", [Json({"error": "server busy"}, status, {"Retry-After": "7"})])
    answer = whole(gateway, face, stream=stream)
    assert (answer.status, answer.headers.get("Retry-After")) == (status, "7")


@each_single
@pytest.mark.parametrize("status", [401, 402, 407])
def test_refusal_of_the_gateways_own_credentials_is_never_the_clients_fault(
    gateway: Gateway, upstream: FaultUpstream, face: Face, status: int
) -> None:
    upstream.script(
        face.upstream_path,
        [Json({"error": "unauthorized"}, status, {"WWW-Authenticate": "Bearer"})],
    )
    answer = whole(gateway, face, stream=False)
    assert answer.status == 502
    assert answer.headers.get("WWW-Authenticate") is None
    assert error_text(answer, face)


@pytest.mark.parametrize("stream", [True, False])
@each_sse
@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"\xff\xfe", b'"text"'])
def test_answer_that_is_no_json_object_is_502(
    gateway: Gateway, upstream: FaultUpstream, body: bytes, face: Face, stream: bool
) -> None:
    upstream.script(face.upstream_path, [Whole(body, 200, JSON)])
    answer = whole(gateway, face, stream=stream)
    assert answer.status == 502
    assert error_text(answer, face)


@pytest.mark.parametrize("vectors", [None, [], [[0.1], [0.2]], "text"])
def test_embeddings_that_do_not_match_their_inputs_are_502(
    gateway: Gateway, upstream: FaultUpstream, vectors: Any
) -> None:
    upstream.script("/api/embed", [Json({"model": "m", "embeddings": vectors})])
    answer = gateway.ask("/v1/embeddings", {"model": "m", "input": ["one"]})
    assert answer.status == 502


# --- Cut short ------------------------------------------------------------------------------------

CHUNKED = Head(200, NDJSON)


@each_face
def test_cut_behind_the_done_line_spoils_nothing(
    gateway: Gateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(
        face.upstream_path,
        [CHUNKED, Chunk(encoded(face.line) + encoded({**face.line, **DONE})), Cut()],
    )
    answer = whole(gateway, face, request_id, stream=True)
    assert is_well_ended(answer.body, face)
    assert access_line(gateway, request_id)["state"] == "ok"


# --- Connections ----------------------------------------------------------------------------------


def test_upstream_that_closes_after_every_answer_is_used_all_the_same(
    gateway_for: Callable[..., Gateway],
) -> None:
    with ScriptedServer() as upstream:
        upstream.script("/api/version", [Json({"version": "1"})])
        end = json.dumps({**CHAT_LINE, **DONE}).encode()
        upstream.script(
            "/api/chat",
            [Send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(end), end)), Cut()],
        )
        gateway = gateway_for(config(upstream.url), workers=1)
        for _ in range(20):
            assert whole(gateway, FACES["openai chat"], stream=False).status == 200


def test_bytes_behind_an_answer_are_not_taken_for_the_next_one(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    end = encoded({**CHAT_LINE, **DONE})
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
    head = Send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    upstream.script("/api/chat", [head, Send(chunk(end) + b"0\r\n\r\n" + stray)])
    for _ in range(6):
        answer = whole(gateway, FACES["native chat"], stream=True)
        assert answer.body == end
