"""Prompts and answers in files of their own, where the operator wants them: whole,
private, and in nobody's way."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gevent.pool import Pool

from tests.golden.face import AnyGateway
from tests.rig import fault_upstream as do
from tests.rig import native_chat
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

TOKEN, OTHER = "team-token-1a2b", "other-token-3c4d"
PROMPT, SPOKEN = "canary-prompt-4d5e6f", "canary-answer-7g8h9i"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(300)).decode()
SHOWN = "<image image/png 309 bytes>"
SAID = [
    native_chat.piece(model=MODEL, thinking="hm"),
    native_chat.piece(SPOKEN, model=MODEL),
]
CALL = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
CALLED = native_chat.piece(model=MODEL, tool_calls=[CALL])
DONE = native_chat.done(model=MODEL) | {"prompt_eval_count": 7, "eval_count": 3}
CHATS = ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses")
ENDS = {
    "/v1/messages": "tool_use",
    "/v1/responses": "completed",
    "/v1/chat/completions": "tool_calls",
}


def config(upstream: FaultUpstream, **logging: Any) -> dict[str, Any]:
    return {
        "auth": {"generate_tokens": [{"name": "web-team", "token": TOKEN}, OTHER]},
        "service": {"base_url": upstream.url},
        "timeouts": {"idle_s": 4},
        "logging": logging,
    }


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    with LocalGateway(config(shared_upstream, chat_logs=True)) as running:
        yield running


def asked(path: str, content: Any, **fields: Any) -> dict[str, Any]:
    """A request that says this, in the form of its path."""
    messages = [{"role": "user", "content": content}]
    if path == "/v1/responses":
        return {"model": MODEL, "input": messages, **fields}
    return {"model": MODEL, "max_tokens": 99, "messages": messages, **fields}


def ask(gateway: AnyGateway, identity: str, path: str, body: Any, token: str = TOKEN) -> Answer:
    return gateway.request("POST", path, body, {"X-Request-Id": identity, **bearer(token)})


def directory(gateway: AnyGateway) -> Path:
    return gateway.logs_directory / "chat"


def records(gateway: AnyGateway) -> list[dict[str, Any]]:
    """All lines of all days that are whole."""
    texts = [
        path.read_text(encoding="utf-8") for path in sorted(directory(gateway).glob("*.jsonl"))
    ]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def record_of(gateway: AnyGateway, identity: str) -> dict[str, Any]:
    """The only record of a request; it is written a moment after the answer."""

    def found() -> list[dict[str, Any]]:
        return [record for record in records(gateway) if record["id"] == identity]

    [record] = wait_until(found, 5, f"no record of {identity}")
    return record


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize("path", CHATS)
def test_a_line_has_the_request_the_answer_and_how_it_went(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, path: str, stream: bool
) -> None:
    whole = DONE | {
        "message": {"role": "assistant", "content": SPOKEN, "thinking": "hm", "tool_calls": [CALL]}
    }
    upstream.script("/api/chat", [do.Lines([*SAID, CALLED, DONE])] if stream else [do.Json(whole)])
    body = asked(path, PROMPT, stream=stream)
    assert ask(gateway, request_id, path, body).status == 200
    record = record_of(gateway, request_id)
    expected = {
        **{
            "token": "web-team",
            "path": path,
            "model": MODEL,
            "upstream": "ollama",
            "status": 200,
            "state": "ok",
        },
        **{
            "stream": stream,
            "prompt_eval_count": 7,
            "eval_count": 3,
            "request": body,
            "vectors": None,
            "cut": [],
        },
        **{"failure": None, "client": "127.0.0.1", "error": None},
    }
    assert {name: record[name] for name in expected} == expected
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    answer = {
        "text": SPOKEN,
        "thinking": "hm",
        "tool_calls": [call],
        "finish": ENDS.get(path, "stop"),
    }
    assert record["answers"] == [answer]
    assert 0 < record["first_byte_ms"] <= record["total_ms"] < 5000


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/generate", {"prompt": PROMPT}), ("/v1/completions", {"prompt": PROMPT, "n": 2})],
)
def test_completions_are_written_too(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, path: str, body: dict[str, Any]
) -> None:
    document = {"model": MODEL, "response": SPOKEN, "done": True, "done_reason": "stop"}
    upstream.script("/api/generate", [do.Json(document)])
    ask(gateway, request_id, path, {"model": MODEL, "stream": False, **body})
    record = record_of(gateway, request_id)
    assert record["request"]["prompt"] == PROMPT
    assert [answer["text"] for answer in record["answers"]] == [SPOKEN] * body.get("n", 1)


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/api/embed", {"input": [PROMPT, "b", "c"]}, 3),
        ("/api/embeddings", {"prompt": PROMPT}, 1),
        ("/v1/embeddings", {"input": PROMPT}, 1),
    ],
)
def test_of_vectors_only_their_number_is_written(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    request_id: str,
    path: str,
    body: dict[str, Any],
    count: int,
) -> None:
    vectors = [[0.125] * 50] * count
    upstream.script(
        "/api/embed", [do.Json({"model": MODEL, "embeddings": vectors, "prompt_eval_count": 3})]
    )
    upstream.script("/api/embeddings", [do.Json({"embedding": vectors[0]})])
    assert ask(gateway, request_id, path, {"model": MODEL, **body}).status == 200
    record = record_of(gateway, request_id)
    assert (record["vectors"], record["answers"], record["failure"]) == (count, [], None)
    assert PROMPT in json.dumps(record["request"])
    assert "0.125" not in json.dumps(record)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/embeddings"])
def test_a_refused_request_says_why(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, path: str
) -> None:
    answer = ask(
        gateway, request_id, path, {"model": MODEL, "messages": PROMPT, "input": {"x": PROMPT}}
    )
    record = record_of(gateway, request_id)
    assert (record["status"], record["state"], record["answers"]) == (400, "refused", [])
    assert record["failure"] and record["failure"] in answer.text
    assert PROMPT in json.dumps(record["request"])


@pytest.mark.parametrize("body", [b"{", b"[]", b""])
def test_what_nobody_could_read_is_not_written(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, body: bytes
) -> None:
    ask(gateway, request_id, "/api/chat", body)
    ask(gateway, request_id, "/api/chat", asked("/api/chat", PROMPT), token="wrong")
    ask(gateway, request_id + "-next", "/api/chat", asked("/api/chat", PROMPT))
    record_of(gateway, request_id + "-next")
    assert [record for record in records(gateway) if record["id"] == request_id] == []


@pytest.mark.parametrize("path", CHATS)
def test_a_stream_that_breaks_is_written_as_far_as_it_came(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, path: str
) -> None:
    upstream.script("/api/chat", [do.Lines(SAID), do.Cut()])
    ask(gateway, request_id, path, asked(path, PROMPT, stream=True))
    record = record_of(gateway, request_id)
    assert (record["state"], record["error"]) == ("upstream_error", "upstream_cut")
    assert (record["answers"][0]["text"], record["answers"][0]["thinking"]) == (SPOKEN, "hm")
    assert "model server" in record["failure"]


@pytest.mark.parametrize("path", CHATS)
def test_a_stream_that_was_left_is_written_as_far_as_it_came(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, path: str
) -> None:
    upstream.script("/api/chat", [do.Lines(SAID), do.WaitForPeerClose(5)])
    body = asked(path, PROMPT, stream=True)
    headers = {"X-Request-Id": request_id, **bearer(TOKEN)}
    with gateway.open_stream("POST", path, body, headers) as stream:
        next(line for line in stream.lines() if SPOKEN.encode() in line.data)
    record = record_of(gateway, request_id)
    assert (record["state"], record["answers"][0]["text"]) == ("client_gone", SPOKEN)


@pytest.mark.parametrize("path", CHATS)
def test_a_stream_is_not_held_up(gateway: LocalGateway, upstream: FaultUpstream, path: str) -> None:
    """Each line is out before the upstream sends the next: it goes on when the client has read
    the line and left."""
    upstream.script("/api/chat", [do.Lines(SAID), do.WaitForPeerClose(5)])
    body = asked(path, PROMPT, stream=True)
    with gateway.open_stream("POST", path, body, bearer(TOKEN)) as stream:
        assert next(line for line in stream.lines() if SPOKEN.encode() in line.data)
    gateway.check_idle()
    assert "peer_stayed" not in [event.kind for event in upstream.events]


IMAGES: dict[str, tuple[str, Any]] = {
    "native": ("/api/chat", PNG),
    "openai": (
        "/v1/chat/completions",
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ),
    "anthropic": (
        "/v1/messages",
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ),
    "responses": (
        "/v1/responses",
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    ),
}


@pytest.mark.parametrize("dialect", IMAGES)
def test_images_are_written_as_their_kind_and_size(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, dialect: str
) -> None:
    path, image = IMAGES[dialect]
    body = asked(path, [image])
    if dialect == "native":
        body["messages"] = [{"role": "user", "content": "What is it?", "images": [image]}]
    ask(gateway, request_id, path, body)
    text = json.dumps(record_of(gateway, request_id)["request"])
    assert SHOWN in text
    assert PNG[:60] not in text


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("secret", [TOKEN, OTHER, "sk-proj-Ab12Cd34Ef56Gh78Ij90"])
def test_secrets_are_in_no_file(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, path: str, secret: str
) -> None:
    answer = [
        {"model": MODEL, "message": {"content": f"You said {part}. "}, "done": False}
        for part in (secret, "")
    ]
    upstream.script("/api/chat", [do.Lines([*answer, DONE])])
    body = asked(
        path, f"My key is {secret}.", stream=True, user=secret, metadata={"user_id": secret}
    )
    ask(gateway, request_id, path, body)
    assert "<redacted>" in json.dumps(record_of(gateway, request_id))
    written = "".join(path.read_text(encoding="utf-8") for path in directory(gateway).iterdir())
    assert secret not in written


def test_the_other_logs_hold_nothing_of_it(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/chat", [do.Lines([*SAID, DONE])])
    ask(gateway, request_id, "/api/chat", asked("/api/chat", PROMPT))
    record_of(gateway, request_id)
    assert [line for line in gateway.log_lines("access") if line["id"] == request_id]
    for name in ("access.log", "events.log"):
        text = (gateway.logs_directory / name).read_text()
        assert PROMPT not in text and SPOKEN not in text


def test_a_very_long_request_is_cut_and_its_answer_whole(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    body = asked("/api/chat", "many words " * 2_000_000) | {"stream": False}
    upstream.script("/api/chat", [do.Json(SAID[1] | DONE | {"message": SAID[1]["message"]})])
    assert ask(gateway, request_id, "/api/chat", body).status == 200
    record = record_of(gateway, request_id)
    assert (record["cut"], record["answers"][0]["text"]) == (["request"], SPOKEN)
    content = record["request"]["messages"][0]["content"]
    assert content.endswith("more characters left out>") and len(content) < 1_100_000


def test_a_very_long_answer_is_cut(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    line = {"model": MODEL, "message": {"content": "word " * 2000}, "done": False}
    upstream.script("/api/chat", [do.Lines([*[line] * 200, DONE])])
    answer = ask(
        gateway,
        request_id,
        "/v1/chat/completions",
        asked("/v1/chat/completions", PROMPT, stream=True),
    )
    assert answer.body.endswith(b"data: [DONE]\n\n")
    record = record_of(gateway, request_id)
    assert record["cut"] == ["answers"]
    assert 1_000_000 < len(record["answers"][0]["text"]) < 1_100_000


def test_only_the_owner_may_read(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    ask(gateway, request_id, "/api/chat", asked("/api/chat", PROMPT))
    record = record_of(gateway, request_id)
    file = directory(gateway) / f"{record['time'][:10]}.jsonl"
    assert (directory(gateway).stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )


def test_every_request_has_exactly_one_line(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    identities = [f"once-{number}" for number in range(80)]

    def one(number: int) -> int:
        path = CHATS[number % len(CHATS)]
        return ask(
            gateway, identities[number], path, asked(path, PROMPT, stream=number % 3 == 0)
        ).status

    assert set(Pool(3).map(one, range(len(identities)))) == {200}

    def missing() -> set[str]:
        return set(identities) - {record["id"] for record in records(gateway)}

    wait_until(lambda: not missing(), 10, lambda: f"missing: {missing()}")
    seen = [record["id"] for record in records(gateway)]
    assert [seen.count(identity) for identity in identities] == [1] * len(identities)


# The switch.


def test_nothing_is_written_unless_it_is_wanted(upstream: FaultUpstream) -> None:
    with LocalGateway(config(upstream)) as running:
        for path in CHATS:
            ask(running, "off", path, asked(path, PROMPT))
        assert len(running.log_lines("access")) == len(CHATS)
        assert not directory(running).exists()


def test_an_edit_switches_it_on_and_off(upstream: FaultUpstream) -> None:
    with LocalGateway(config(upstream)) as running:
        ask(running, "before", "/api/chat", asked("/api/chat", PROMPT))
        running.apply(config(upstream, chat_logs=True))
        ask(running, "on", "/api/chat", asked("/api/chat", PROMPT))
        record_of(running, "on")
        running.apply(config(upstream, chat_logs=False))
        ask(running, "after", "/api/chat", asked("/api/chat", PROMPT))
        assert len(running.log_lines("access")) == 3
        assert [record["id"] for record in records(running)] == ["on"]


# The disk.


def test_a_full_disk_stops_no_request_and_is_said_once(upstream: FaultUpstream) -> None:
    with LocalGateway(config(upstream, chat_logs=True)) as running:
        directory(running).mkdir(mode=0o700)
        days = [datetime.now(UTC).date() + timedelta(days) for days in (0, 1)]
        full = [directory(running) / f"{day}.jsonl" for day in days]
        for file in full:
            file.symlink_to("/dev/full")
        for number in range(10):
            path = CHATS[number % len(CHATS)]
            assert ask(running, "lost", path, asked(path, PROMPT, stream=number > 4)).status == 200

        wait_until(lambda: running.events("chat_log_failed"))
        for file in full:
            file.unlink()
        ask(running, "kept", "/api/chat", asked("/api/chat", PROMPT))
        record_of(running, "kept")
        assert [event["problem"] for event in running.events("chat_log_failed")] == [
            "No space left on device"
        ]
