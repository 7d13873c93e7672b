"""A new dialect is one file and one line: the gateway does for it all that
it does for the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import fault_upstream as do
from tests.rig import native_chat
from tests.rig.calls import access_line, config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, open_stream, raw, request

TOKEN, READER = "toy-token-1a2b", "toy-token-3c4d"
PAGE = "https://chat.example"
SAID = [native_chat.piece(word, model=MODEL) for word in ("one ", "two")]
DONE = native_chat.done(model=MODEL) | {"prompt_eval_count": 7, "eval_count": 3}


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    tokens = [{"name": "team", "token": TOKEN, "scopes": ["read", "generate"]}]
    tokens += [{"name": "reader", "token": READER, "scopes": ["read"]}]
    settings = config(
        shared_upstream.url, auth={"generate_tokens": tokens}, logging={"chat_logs": True}
    )
    with Gateway(settings, workers=1, app="tests.rig.toy_dialect:app") as running:
        yield running


def say(
    gateway: Gateway,
    request_id: str,
    body: Any = None,
    token: str | None = TOKEN,
    path: str = "/toy/say",
) -> Answer:
    headers = {"X-Request-Id": request_id, **(bearer(token) if token else {})}
    return request(
        gateway.url, "POST", path, {"model": MODEL, "text": "hi"} if body is None else body, headers
    )


def lines(answer: Answer) -> list[Any]:
    return [json.loads(line) for line in answer.body.splitlines()]


def record(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """The line of the chat log on a request."""

    def found() -> list[dict[str, Any]]:
        files = (gateway.logs_directory / "chat").glob("*.jsonl")
        written = [
            json.loads(line)
            for path in files
            for line in path.read_text().splitlines(keepends=True)
        ]
        return [each for each in written if each["id"] == request_id]

    [only] = wait_until(found, 5, f"no record of {request_id}")
    return only


def problem(answer: Answer, request_id: str, status: int, slug: str) -> str:
    """The text of an error in the toy's own shape."""
    [document] = lines(answer)
    assert (answer.status, document["slug"], document["id"]) == (status, slug, request_id)
    assert answer.headers.get("Toy-Id") == request_id
    assert document.keys() == {"toy_problem", "slug", "id"}
    return str(document["toy_problem"])


def test_a_request_is_translated_for_the_upstream(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(
        "/api/chat", [do.Json(DONE | {"message": {"role": "assistant", "content": "one two"}})]
    )
    answer = say(gateway, request_id)
    assert (answer.status, lines(answer)) == (200, [{"say": "one two", "end": "stop"}])
    [sent] = [seen.json() for seen in upstream.requests if seen.path == "/api/chat"]
    assert (sent["model"], sent["messages"], sent["stream"]) == (
        MODEL,
        [{"role": "user", "content": "hi"}],
        False,
    )
    seen = access_line(gateway, request_id)
    assert (seen["dialect"], seen["state"], seen["eval_count"]) == ("toy", "ok", 3)
    spoken = {"text": "one two", "thinking": "", "tool_calls": [], "finish": "stop"}
    assert record(gateway, request_id)["answers"] == [spoken]


def test_an_answer_is_streamed(gateway: Gateway, upstream: FaultUpstream, request_id: str) -> None:
    upstream.script("/api/chat", [do.Lines([*SAID, DONE])])
    answer = say(gateway, request_id, {"model": MODEL, "text": "hi", "stream": True})
    assert answer.headers.get("Content-Type") == "application/x-ndjson"
    assert "".join(line.get("say", "") for line in lines(answer)) == "one two"
    assert lines(answer)[-1] == {"end": "stop"}
    assert record(gateway, request_id)["answers"][0]["text"] == "one two"


def test_a_stream_that_breaks_ends_with_the_toys_own_frame(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/chat", [do.Lines(SAID), do.Cut()])
    answer = say(gateway, request_id, {"model": MODEL, "text": "hi", "stream": True})
    assert lines(answer)[-1].keys() == {"toy_problem"}
    assert record(gateway, request_id)["failure"] == lines(answer)[-1]["toy_problem"]


def test_errors_have_the_toys_own_shape(gateway: Gateway, request_id: str) -> None:
    assert (
        problem(say(gateway, request_id, {"model": MODEL}), request_id, 400, "invalid_request")
        == "text: must be a string"
    )
    text = problem(say(gateway, request_id, path="/toy/nothing"), request_id, 404, "not_found")
    assert text == "The path /toy/nothing does not exist. Toys say things at /toy/say."


def test_errors_of_http_itself_have_the_toys_own_shape(gateway: Gateway) -> None:
    head = b"POST /toy/say HTTP/1.1\r\nHost: gw\r\nBlank : x\r\n\r\n"
    document = json.loads(raw(gateway.port, head).partition(b"\r\n\r\n")[2])
    assert document.keys() == {"toy_problem", "slug", "id"}


def test_a_token_needs_the_scopes_that_the_toy_names(gateway: Gateway, request_id: str) -> None:
    problem(say(gateway, request_id, token=""), request_id, 401, "missing_token")
    problem(say(gateway, request_id, token="wrong"), request_id, 401, "invalid_token")
    assert "'generate'" in problem(
        say(gateway, request_id, token=READER), request_id, 403, "not_allowed"
    )
    answer = request(
        gateway.url, "GET", "/toy/models", None, {"X-Request-Id": request_id, **bearer(TOKEN)}
    )
    assert "'manage'" in problem(answer, request_id, 403, "not_allowed")


def test_web_pages_may_call_it_and_read_its_headers(gateway: Gateway, request_id: str) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = request(gateway.url, "OPTIONS", "/toy/say", None, asked)
    assert (preflight.status, preflight.headers.get("Allow")) == (204, "OPTIONS, POST")
    assert "POST" in (preflight.headers.get("Access-Control-Allow-Methods") or "")
    answer = request(gateway.url, "POST", "/toy/say", {}, {"Origin": PAGE, **bearer(TOKEN)})
    assert answer.headers.get("Access-Control-Allow-Origin") in ("*", PAGE)
    assert "Toy-Id" in (answer.headers.get("Access-Control-Expose-Headers") or "")


def test_a_client_that_leaves_ends_its_request(
    gateway: Gateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/chat", [do.Lines(SAID), do.WaitForPeerClose(10)])
    headers = {"X-Request-Id": request_id, **bearer(TOKEN)}
    body = {"model": MODEL, "text": "hi", "stream": True}
    with open_stream(gateway.url, "POST", "/toy/say", body, headers) as stream:
        next(line for line in stream.lines() if b"two" in line.data)
        connection = upstream.wait_for_request(1, "/api/chat").connection
    upstream.wait_peer_closed(connection)
    assert access_line(gateway, request_id)["state"] == "client_gone"
    assert record(gateway, request_id)["answers"][0]["text"] == "one two"


@pytest.mark.parametrize(
    ("path", "key"), [("/api/nothing", "error"), ("/v1/nothing", "error"), ("/anthropic/x", "type")]
)
def test_the_other_dialects_stay_as_they_are(
    gateway: Gateway, request_id: str, path: str, key: str
) -> None:
    answer = say(gateway, request_id, path=path)
    assert (answer.status, key in answer.json(), answer.headers.get("Toy-Id")) == (404, True, None)
