"""What Anthropic's clients are told when something fails: before the first byte by a
status, later by an event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from tests.golden import face
from tests.golden.face import TOKEN, forwarded, named_frames, post
from tests.rig import native_chat
from tests.rig.calls import access_line
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Cut,
    FaultUpstream,
    Head,
    Json,
    Lines,
    Script,
    WaitFor,
    WaitForPeerClose,
    Whole,
)
from tests.rig.http_client import Answer, Stream, bearer
from tests.rig.local import LocalGateway

MESSAGES = "/v1/messages"
PATHS = (MESSAGES, "/anthropic/v1/messages", "/v1/messages/count_tokens")
USER = [{"role": "user", "content": "Hi"}]
BODY = {"model": "m", "max_tokens": 9, "messages": USER}
READER, NARROW = "reader-token", "narrow-token"
LIMIT = 64 * 1024
HEARTBEAT_S = 0.1
BUSY = "server busy, please try again.  maximum pending requests exceeded"
LINE = native_chat.piece("Hel")
THOUGHT = native_chat.piece(thinking="hm")
DONE = native_chat.done()

each_way = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "single"])


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway with short limits and a fast heartbeat."""
    reader = {"name": "reader", "token": READER, "scopes": ["read"]}
    narrow = {"name": "narrow", "token": NARROW, "models": ["small*"]}
    config = {
        "auth": {"generate_tokens": [TOKEN, reader, narrow]},
        "server": {"max_body": LIMIT},
        "timeouts": {"first_byte_s": 0.8, "idle_s": 0.8, "connect_s": 1},
        "stream": {"heartbeat_s": HEARTBEAT_S},
    }
    with face.local_gateway(shared_upstream, **config) as running:
        yield running


def ask(gateway: LocalGateway, stream: bool = False, request_id: str = "asked") -> Answer:
    return post(gateway, MESSAGES, BODY | {"stream": stream}, **{"X-Request-Id": request_id})


def assert_error(answer: Answer, status: int, kind: str) -> str:
    """The answer is exactly Anthropic's error with this status; returns its text."""
    assert (answer.status, answer.complete) == (status, True), answer.text[:500]
    assert (answer.headers.get("Content-Type") or "").startswith("application/json")
    assert answer.headers.get("X-Accel-Buffering") is None
    document = answer.json()
    assert document.keys() == {"type", "error", "request_id"} and document["type"] == "error"
    assert (
        document["request_id"]
        == answer.headers.get("request-id")
        == answer.headers.get("X-Request-Id")
    )
    assert document["error"].keys() == {"type", "message"} and document["error"]["type"] == kind
    assert answer.headers.get("anthropic-version")
    return str(document["error"]["message"])


# Before the first byte.


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{nope", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"", "missing request body"),
        (json.dumps({**BODY, "Model": "other"}).encode(), "must be spelled 'model'"),
        (b'{"model":"m","model":"n"}', "duplicate field"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_400_for_a_body_that_can_not_be_read(
    path: str, body: bytes, text: str, gateway: LocalGateway
) -> None:
    assert text in assert_error(post(gateway, path, body), 400, "invalid_request_error")


@pytest.mark.parametrize("path", PATHS)
def test_401_without_a_token_says_so_in_both_languages(path: str, gateway: LocalGateway) -> None:
    text = assert_error(gateway.request("POST", path, BODY), 401, "authentication_error")
    assert text.startswith("未提供认证token") and "no token" in text


@pytest.mark.parametrize("name", ["x-api-key", "Authorization"])
def test_G29_401_for_a_wrong_token_says_so_in_both_languages(
    name: str, gateway: LocalGateway
) -> None:
    answer = gateway.request("POST", MESSAGES, BODY, {name: "wrong"})
    text = assert_error(answer, 401, "authentication_error")
    assert text.startswith("非授权访问") and "not valid" in text


@pytest.mark.parametrize("path", PATHS)
def test_403_names_the_scope_that_is_missing(path: str, gateway: LocalGateway) -> None:
    answer = gateway.ask(path, BODY, token=READER)
    assert "'generate'" in assert_error(answer, 403, "permission_error")


@pytest.mark.parametrize("path", PATHS)
def test_404_for_a_model_that_the_token_may_not_use(
    path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    text = assert_error(gateway.ask(path, BODY, token=NARROW), 404, "not_found_error")
    assert text == "model 'm' not found"
    assert gateway.ask(path, BODY | {"model": "small"}, token=NARROW).status == 200
    assert "m" not in [
        seen.json().get("model") for seen in forwarded(upstream) if seen.path == "/api/chat"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/batches",
        "/v1/messages/batches/msgbatch_1/results",
        "/v1/messages/",
        "/v1/messages/count_tokens/x",
        "/anthropic",
        "/anthropic/v1/models",
        "/anthropic/v1/complete",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_404_for_an_unknown_address(method: str, path: str, gateway: LocalGateway) -> None:
    body = BODY if method == "POST" else None
    assert_error(gateway.ask(path, body, method=method), 404, "not_found_error")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_405_says_what_the_address_takes(method: str, path: str, gateway: LocalGateway) -> None:
    answer = gateway.ask(path, method=method)
    assert_error(answer, 405, "invalid_request_error")
    assert "POST" in (answer.headers.get("Allow") or "")


def test_413_for_a_body_over_the_limit(gateway: LocalGateway) -> None:
    assert_error(post(gateway, MESSAGES, b" " * (LIMIT + 1)), 413, "request_too_large")


def test_415_for_what_can_not_be_json(gateway: LocalGateway) -> None:
    answer = post(
        gateway, MESSAGES, b"--x\r\n", **{"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert_error(answer, 415, "invalid_request_error")


@each_way
def test_G05_error_before_the_first_byte_keeps_its_status(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": "model 'x' not found"}, 404)])
    assert assert_error(ask(gateway, stream), 404, "not_found_error") == "model 'x' not found"


@each_way
@pytest.mark.parametrize(
    ("status", "told_status", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 502, "api_error"),
        (402, 502, "api_error"),
        (403, 403, "permission_error"),
        (409, 409, "conflict_error"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (503, 503, "overloaded_error"),
        (504, 504, "timeout_error"),
        (529, 529, "overloaded_error"),
    ],
)
def test_type_follows_the_status(
    status: int,
    told_status: int,
    kind: str,
    stream: bool,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    upstream.script("/api/chat", [Json({"error": "it broke"}, status)])
    assert_error(ask(gateway, stream), told_status, kind)


@each_way
def test_G30_busy_upstream_is_overloaded_and_says_when_to_come_back(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": BUSY}, 503)])
    answer = ask(gateway, stream)
    assert assert_error(answer, 503, "overloaded_error") == BUSY
    assert int(answer.headers.get("Retry-After") or "0") >= 1


def test_G30_origin_and_keys_of_the_client_stay_here(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    post(gateway, MESSAGES, BODY, Origin="https://evil.example", Host="gw.example", Cookie="a=b")
    [seen] = [one for one in forwarded(upstream) if one.path == "/api/chat"]
    assert (seen.header("Origin"), seen.header("Authorization"), seen.header("Cookie")) == (
        None,
        None,
        None,
    )
    assert seen.header("Host") == f"127.0.0.1:{upstream.port}"


@each_way
def test_503_when_the_upstream_is_down(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.refuse()
    try:
        text = assert_error(ask(gateway, stream), 503, "overloaded_error")
    finally:
        upstream.restart()
    assert text.startswith("Failed to connect to Ollama service")


def test_504_when_the_upstream_says_nothing(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [WaitForPeerClose(5)])
    assert_error(ask(gateway), 504, "timeout_error")


@each_way
def test_prompt_that_is_too_long_begins_with_the_words_that_clients_look_for(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Json({"error": "the input length exceeds the context length"}, 400)]
    )
    text = assert_error(ask(gateway, stream), 400, "invalid_request_error")
    assert text.startswith("prompt is too long: the input length exceeds the context length")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"StatusCode": 429, "Status": "429 Too Many Requests", "error": "slow"}, "slow"),
        ({"error": '{"error":{"message":"bad schema"}}'}, "bad schema"),
        ({"error": {"message": "deep", "code": 5}}, "deep"),
    ],
)
def test_text_of_an_error_is_a_sentence(
    said: dict[str, Any], text: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json(said, 429)])
    assert assert_error(ask(gateway), 429, "rate_limit_error") == text


@each_way
def test_page_of_a_proxy_is_a_bad_gateway(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Whole(b"<html>Bad gateway</html>", 502, {"Content-Type": "text/html"})]
    )
    assert "html" not in assert_error(ask(gateway, stream), 502, "api_error")


def test_G04_single_answer_without_done_is_a_bad_gateway(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({**LINE, "done": False})])
    assert_error(ask(gateway), 502, "api_error")


def test_G03_single_answer_that_is_an_error_is_one(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": "boom"})])
    assert assert_error(ask(gateway), 500, "api_error") == "boom"


# In the middle of a stream.

BEGIN = ["message_start", "ping"]


def without_heartbeats(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events less the pings behind the first one, which depend on how fast the machine is."""
    return events[:2] + [event for event in events[2:] if event["type"] != "ping"]


@pytest.mark.parametrize(
    ("script", "kind", "slug"),
    [
        ([Lines([LINE, {"error": "boom"}])], "api_error", "upstream_refused"),
        ([Lines([LINE])], "api_error", "upstream_cut"),
        ([Head(), Lines([LINE]), Cut()], "api_error", "upstream_cut"),
        ([Lines([LINE, b"nonsense\n"])], "api_error", "upstream_error"),
        ([Lines([LINE]), WaitForPeerClose(5)], "timeout_error", "upstream_timeout"),
    ],
    ids=["error", "no last line", "cut", "nonsense", "silence"],
)
def test_G03_G04_failure_in_the_middle_is_an_error_event_and_no_proper_end(
    script: Script,
    kind: str,
    slug: str,
    gateway: LocalGateway,
    upstream: FaultUpstream,
    request_id: str,
) -> None:
    upstream.script("/api/chat", script)
    answer = ask(gateway, True, request_id)
    assert (answer.status, answer.complete) == (200, True)
    *events, last = without_heartbeats(named_frames(answer.body))
    assert [event["type"] for event in events] == [
        *BEGIN,
        "content_block_start",
        "content_block_delta",
    ]
    assert last.keys() == {"type", "error"} and last["error"].keys() == {"type", "message"}
    assert last["error"]["type"] == kind
    line = access_line(gateway, request_id)
    assert (line["error"], line["status"]) == (slug, 200)


def test_G03_failure_inside_a_thought_does_not_sign_it(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Lines([THOUGHT, {"error": "boom"}])])
    answer = ask(gateway, True)
    assert b"signature_delta" not in answer.body and b"message_stop" not in answer.body
    assert named_frames(answer.body)[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "boom"},
    }


def test_failure_after_heartbeats_alone_is_an_event_too(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    go_on = Event()
    upstream.script("/api/chat", [WaitFor(go_on), Json({"error": "no such model"}, 404)])
    with gateway.open(MESSAGES, BODY | {"stream": True}) as stream:
        waiting = read_until(stream, "ping", 1)
        go_on.set()
        events = without_heartbeats(named_frames(waiting + stream.read_all()))
    assert [event["type"] for event in events] == [*BEGIN, "error"]
    assert events[-1]["error"] == {"type": "not_found_error", "message": "no such model"}


# Heartbeats.


def read_until(stream: Stream, event: str, times: int) -> bytes:
    """The body so far, once this event has come so often; fails when it ends before that."""
    body = b""
    while body.count(f"event: {event}\n".encode()) < times:
        data = stream.read_some()
        assert data, body
        body += data
    return body


def test_ping_before_the_first_token_comes_behind_the_start_of_the_message(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    go_on = Event()
    upstream.script("/api/chat", [WaitFor(go_on), Lines([LINE, DONE])])
    with gateway.open(MESSAGES, BODY | {"stream": True}) as stream:
        # One belongs to the start.
        waiting = read_until(stream, "ping", 3)
        go_on.set()
        types = [event["type"] for event in named_frames(waiting + stream.read_all())]
    assert types[:4] == ["message_start", "ping", "ping", "ping"]
    assert types.count("message_start") == 1 and types[-1] == "message_stop"


def test_ping_between_tokens(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    go_on = Event()
    upstream.script("/api/chat", [Lines([LINE]), WaitFor(go_on), Lines([LINE, DONE])])
    with gateway.open(MESSAGES, BODY | {"stream": True}) as stream:
        waiting = read_until(stream, "ping", 3)
        go_on.set()
        types = [event["type"] for event in named_frames(waiting + stream.read_all())]
    first, last = (index for index, kind in enumerate(types) if kind == "content_block_delta")
    assert set(types[first + 1 : last]) == {"ping"}
    assert types[-1] == "message_stop"


def test_first_event_does_not_wait_for_the_second(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Lines([LINE]), WaitForPeerClose(5)])
    with gateway.open(MESSAGES, BODY | {"stream": True}) as stream:
        assert stream.status == 200
        assert stream.headers.get("X-Accel-Buffering") == "no"
        assert b"Hel" in stream.read_some()


def test_G30_client_that_leaves_ends_the_work_of_the_upstream(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/chat", [Lines([LINE]), WaitForPeerClose(5)])
    headers = bearer(TOKEN) | {"X-Request-Id": request_id}
    with gateway.open_stream("POST", MESSAGES, BODY | {"stream": True}, headers) as stream:
        assert b"Hel" in stream.read_some()
    wait_until(lambda: "peer_closed" in [event.kind for event in upstream.events], 5)
    assert access_line(gateway, request_id)["state"] == "client_gone"
