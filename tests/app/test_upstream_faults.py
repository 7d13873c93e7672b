"""What an upstream can do wrong, and what of it a client may see: an honest error, once,
and never a good end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import NDJSON, chunk
from tests.rig.calls import (
    CHAT_LINE,
    EMBEDDINGS,
    FACES,
    SSE_FACES,
    Face,
    access_line,
    config,
    each_dialect,
    each_face,
    error_text,
    is_well_ended,
    whole,
)
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    FaultUpstream,
    Head,
    Json,
    Send,
    Whole,
)
from tests.rig.local import LocalGateway

JSON = {"Content-Type": "application/json"}
DONE = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway for the module; nothing of what an upstream does is an error inside it."""
    with LocalGateway(config(shared_upstream.url)) as gateway:
        yield gateway
        assert gateway.events("internal_error") == []


def encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def arrivals(upstream: FaultUpstream, path: str) -> int:
    """How many requests for a path have reached the upstream."""
    return sum(seen.path == path for seen in upstream.requests)


# --- Not there ------------------------------------------------------------------------------------


def test_upstream_that_comes_back_is_used_at_once(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.refuse()
    assert whole(gateway, FACES["openai chat"], stream=True).status == 503
    gateway.check_health()
    assert gateway.request(path="/readyz").status == 503
    assert gateway.request(path="/livez").status == 200
    upstream.restart()
    assert whole(gateway, FACES["openai chat"], stream=True).body.endswith(b"data: [DONE]\n\n")
    gateway.check_health()
    assert gateway.request(path="/readyz").status == 200


# --- Refusals and wrong answers -------------------------------------------------------------------


#: Each status in one face, and each face with one status: what becomes of a status is decided
#: before anything of a face.
FACES_AND_EMBEDDINGS = {**FACES, **EMBEDDINGS}


def by_face_and_by_status(first: int, *more: int) -> Any:
    rows = [(name, first) for name in FACES_AND_EMBEDDINGS]
    rows += [("openai chat", status) for status in more]
    return pytest.mark.parametrize(
        ("face", "status"),
        [(FACES_AND_EMBEDDINGS[name], status) for name, status in rows],
        ids=[f"{name}-{status}" for name, status in rows],
    )


@by_face_and_by_status(404, 400, 403, 429, 500, 502, 503, 504)
def test_refusal_keeps_its_status_and_text(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face, status: int
) -> None:
    upstream.script(face.upstream_path, [Json({"error": "no can do"}, status)])
    answer = whole(gateway, face, stream=False)
    assert (answer.status, error_text(answer, face)) == (status, "no can do")
    assert arrivals(upstream, face.upstream_path) == 1


@pytest.mark.parametrize(("status", "stream"), [(429, True), (503, False)])
@each_dialect
def test_retry_after_of_the_upstream_is_passed_on(
    gateway: LocalGateway, upstream: FaultUpstream, status: int, face: Face, stream: bool
) -> None:
    upstream.script("/api/chat", [Json({"error": "server busy"}, status, {"Retry-After": "7"})])
    answer = whole(gateway, face, stream=stream)
    assert (answer.status, answer.headers.get("Retry-After")) == (status, "7")


@by_face_and_by_status(401, 402, 407)
def test_refusal_of_the_gateways_own_credentials_is_never_the_clients_fault(
    gateway: LocalGateway, upstream: FaultUpstream, face: Face, status: int
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
@pytest.mark.parametrize(
    ("face", "body"),
    [
        *(("openai chat", body) for body in (b"[]", b"null", b"{", b"\xff\xfe", b'"text"')),
        *((name, b"[]") for name in SSE_FACES if name != "openai chat"),
    ],
)
def test_answer_that_is_no_json_object_is_502(
    gateway: LocalGateway, upstream: FaultUpstream, body: bytes, face: str, stream: bool
) -> None:
    upstream.script(FACES[face].upstream_path, [Whole(body, 200, JSON)])
    answer = whole(gateway, FACES[face], stream=stream)
    assert answer.status == 502
    assert error_text(answer, FACES[face])


@pytest.mark.parametrize("vectors", [None, [], [[0.1], [0.2]], "text"])
def test_embeddings_that_do_not_match_their_inputs_are_502(
    gateway: LocalGateway, upstream: FaultUpstream, vectors: Any
) -> None:
    upstream.script("/api/embed", [Json({"model": "m", "embeddings": vectors})])
    answer = gateway.ask("/v1/embeddings", {"model": "m", "input": ["one"]})
    assert answer.status == 502


# --- Cut short ------------------------------------------------------------------------------------

CHUNKED = Head(200, NDJSON)


@each_face
def test_cut_behind_the_done_line_spoils_nothing(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: Face
) -> None:
    upstream.script(
        face.upstream_path,
        [CHUNKED, Chunk(encoded(face.line) + encoded({**face.line, **DONE})), Cut()],
    )
    answer = whole(gateway, face, request_id, stream=True)
    assert is_well_ended(answer.body, face)
    assert access_line(gateway, request_id)["state"] == "ok"


# --- Connections ----------------------------------------------------------------------------------


@pytest.fixture
def wired_gateway(upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway that reaches the upstream over sockets."""
    with LocalGateway(config(upstream.url), over_sockets=True) as running:
        yield running


def test_upstream_that_closes_after_every_answer_is_used_all_the_same(
    wired_gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    end = json.dumps({**CHAT_LINE, **DONE}).encode()
    upstream.script(
        "/api/chat",
        [Send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(end), end)), Cut()],
    )
    for _ in range(20):
        assert whole(wired_gateway, FACES["openai chat"], stream=False).status == 200


def test_bytes_behind_an_answer_are_not_taken_for_the_next_one(
    wired_gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    end = encoded({**CHAT_LINE, **DONE})
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
    head = Send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    upstream.script("/api/chat", [head, Send(chunk(end) + b"0\r\n\r\n" + stray)])
    for _ in range(6):
        answer = whole(wired_gateway, FACES["native chat"], stream=True)
        assert answer.body == end
