"""What goes wrong on the Responses face: before the first byte a real status, behind
it `response.failed`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.golden import face
from tests.golden.face import TOKEN, get, post
from tests.golden.responses.reading import Document, events, rebuilt
from tests.rig import NDJSON, native_chat
from tests.rig.errors import OPENAI, assert_error
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    FaultUpstream,
    Head,
    Json,
    Lines,
    Wait,
    WaitForPeerClose,
)
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

PATH, CHAT = "/v1/responses", "/v1/chat/completions"
HEARTBEAT_S, LIMIT_S = 0.1, 0.8
KEEP_ALIVE = b": keep-alive\n\n"
OPENING = ["response.created", "response.in_progress"]
LINE = native_chat.piece("Hel")
DONE = native_chat.done()
CUT_TEXT = "The model server stopped in the middle of its answer."
Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway with a fast heartbeat and little patience."""
    limits = {"first_byte_s": LIMIT_S, "idle_s": LIMIT_S}
    with face.local_gateway(
        shared_upstream, stream={"heartbeat_s": HEARTBEAT_S}, timeouts=limits
    ) as running:
        yield running


@pytest.fixture
def ask(gateway: LocalGateway) -> Ask:
    def run(path: str = PATH, **fields: Any) -> Answer:
        own: Document = (
            {"input": "Hi"} if path == PATH else {"messages": [{"role": "user", "content": "Hi"}]}
        )
        return post(gateway, path, {"model": "m"} | own | fields)

    return run


each_way = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "single"])

REFUSALS = [
    (400, {"error": "the input length exceeds the context length"}),
    (400, {"error": "registry.ollama.ai/library/m does not support tools"}),
    (401, {"error": "unauthorized"}),
    (404, {"error": "model 'm' not found"}),
    (429, {"error": "slow down"}),
    (500, {"error": "model runner has unexpectedly stopped"}),
    (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}),
]


@each_way
@pytest.mark.parametrize(
    ("status", "document"),
    REFUSALS,
    ids=[f"{status}-{n}" for n, (status, _) in enumerate(REFUSALS)],
)
def test_G05_error_before_the_first_byte_is_that_of_chat(
    status: int, document: Document, stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json(document, status)])
    answer, of_chat = ask(stream=stream), ask(CHAT, stream=stream)
    assert (answer.status, answer.body) == (of_chat.status, of_chat.body)
    assert answer.headers.get("Content-Type") == "application/json"
    assert answer.headers.get("Retry-After") == of_chat.headers.get("Retry-After")
    assert_error(answer, OPENAI, of_chat.status)


@each_way
def test_G05_missing_model_has_its_status_and_code(
    stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": "model 'm' not found"}, 404)])
    answer = ask(stream=stream)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.headers.get("X-Accel-Buffering") is None


@each_way
def test_G05_error_as_the_first_line_still_gets_a_status(
    stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Lines([{"error": "boom"}])] if stream else [Json({"error": "boom"}, 500)]
    )
    answer = ask(stream=stream)
    assert (answer.status, answer.json()["error"]["message"]) == (500, "boom")


@each_way
def test_upstream_that_is_down(stream: bool, ask: Ask, upstream: FaultUpstream) -> None:
    upstream.refuse()
    try:
        answer = ask(stream=stream)
    finally:
        upstream.restart()
    assert (answer.status, "Failed to connect to Ollama service" in answer.text) == (503, True)
    assert_error(answer, OPENAI, 503)


def failed(answer: Answer) -> Document:
    """The last event of a stream that failed, after a look at how it was told."""
    documents = events(answer.body)
    assert (answer.status, answer.complete) == (200, True)
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
    assert [document["type"] for document in documents[:2]] == OPENING
    assert documents[-1]["type"] == "response.failed"
    response: Document = documents[-1]["response"]
    assert response["status"] == "failed"
    assert response["id"] == documents[0]["response"]["id"]
    built = [item | {"status": "incomplete"} for item in rebuilt(documents[2:-1])]
    assert response["output"] == built
    return response


ENDS: dict[str, tuple[list[Action], str]] = {
    "ends cleanly": ([], CUT_TEXT),
    "cut": ([Cut()], CUT_TEXT),
    "half a line": ([Chunk(b'{"model":"m","mess')], "The model server sent an invalid response."),
}


@pytest.mark.parametrize("end", ENDS)
def test_G04_stream_without_its_last_line_is_response_failed(
    end: str, ask: Ask, upstream: FaultUpstream
) -> None:
    script, message = ENDS[end]
    upstream.script("/api/chat", [Head(200, NDJSON), Lines([LINE]), *script])
    response = failed(ask(stream=True))
    assert response["error"] == {"code": "server_error", "message": message}
    assert [item["content"][0]["text"] for item in response["output"]] == ["Hel"]


def test_G04_single_answer_that_is_cut_is_a_bad_gateway(ask: Ask, upstream: FaultUpstream) -> None:
    head = Head(200, {"Content-Type": "application/json", "Content-Length": "500"}, chunked=False)
    upstream.script("/api/chat", [head, Chunk(b'{"model":"m"'), Cut()])
    assert_error(ask(), OPENAI, 502)


def test_error_in_the_middle_is_told_with_its_text(ask: Ask, upstream: FaultUpstream) -> None:
    """G02"""
    upstream.script(
        "/api/chat", [Lines([LINE, {"error": "an error was encountered while running the model"}])]
    )
    assert failed(ask(stream=True))["error"] == {
        "code": "server_error",
        "message": "an error was encountered while running the model",
    }


def test_silence_in_the_middle_is_told(ask: Ask, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Lines([LINE]), WaitForPeerClose()])
    assert f"was silent for {LIMIT_S} s" in failed(ask(stream=True))["error"]["message"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "invalid_prompt"), (404, "server_error"), (429, "rate_limit_exceeded")],
)
def test_error_behind_a_heartbeat_is_response_failed(
    status: int, code: str, ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Wait(2.5 * HEARTBEAT_S), Json({"error": "what Ollama said"}, status)]
    )
    response = failed(ask(stream=True))
    assert (response["error"], response["output"]) == (
        {"code": code, "message": "what Ollama said"},
        [],
    )


@pytest.mark.parametrize(
    "before", [(), (Head(200, NDJSON),)], ids=["before the head", "before the first token"]
)
def test_first_heartbeat_opens_the_answer(
    before: tuple[Head, ...], gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [*before, Wait(3.5 * HEARTBEAT_S), Lines([LINE, DONE])])
    asked = {"model": "m", "input": "Hi", "stream": True}
    with gateway.open_stream("POST", PATH, asked, bearer(TOKEN)) as stream:
        first = stream.read_some()
        assert [document["type"] for document in events(first)] == OPENING
        assert first.endswith(KEEP_ALIVE)
        rest = stream.read_all()
    assert rest.startswith(KEEP_ALIVE)
    documents = events(first + rest)
    assert [document["type"] for document in documents[:3]] == [
        *OPENING,
        "response.output_item.added",
    ]
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))


def test_heartbeats_come_between_tokens_as_comments(ask: Ask, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Lines([LINE, DONE], delay_s=3.5 * HEARTBEAT_S)])
    answer = ask(stream=True)
    assert 1 <= answer.body.count(KEEP_ALIVE) <= 3
    assert events(answer.body)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/responses/compact"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/conv_1"),
        ("DELETE", "/v1/conversations/conv_1"),
        ("GET", "/v1/conversations/conv_1/items"),
    ],
)
def test_addresses_of_stored_answers_say_that_there_are_none(
    method: str, path: str, gateway: LocalGateway
) -> None:
    answer = gateway.request(method, path, {} if method == "POST" else None, bearer(TOKEN))
    assert_error(answer, OPENAI, 404)
    assert "This gateway stores no responses" in answer.json()["error"]["message"]


def test_other_methods_are_refused(gateway: LocalGateway) -> None:
    answer = get(gateway, PATH)
    assert_error(answer, OPENAI, 405)
    assert "POST" in (answer.headers.get("Allow") or "")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
@pytest.mark.parametrize("path", [PATH, "/v1/responses/resp_1", "/v1/conversations"])
def test_token_is_needed(
    path: str, headers: dict[str, str], gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert_error(gateway.request("POST", path, {"model": "m", "input": "Hi"}, headers), OPENAI, 401)
    assert not face.forwarded(upstream)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b'{"model":"m","Input":"a","input":"b"}']
)
def test_body_that_is_no_request_is_refused(
    body: bytes, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    headers = bearer(TOKEN) | {"Content-Type": "application/json"}
    assert_error(gateway.request("POST", PATH, body, headers), OPENAI, 400)
    assert not face.forwarded(upstream)
