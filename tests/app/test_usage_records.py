"""What a worker notes of each request: the same as the access log has, for every way in which a
request can go and end, and nothing of what it says. Two workers, and the end of one, are in
tests/integration/test_usage_records.py."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, NamedTuple

import pytest

from ollama_proxy.upstreams.forms import Part, write_form
from tests.rig.boxes import Box
from tests.rig.calls import CHAT_LINE, EMBEDDINGS, FACES, Face, access_line
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Cut, Json, Lines, Reset, Script, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import Provider, completion, row, said
from tests.rig.spool import NO_DATABASE, end_line, lines_with, read_spool

TOKEN, ADMIN, ONCE, READER = (
    "canary-token-1a2b3c",
    "canary-admin-9z8y7x",
    "canary-once-5m6n7o",
    "canary-reader-3k4l",
)
PROMPT, ANSWER = "canary-prompt-4d5e6f", "canary-answer-7g8h9i"
USER_HEADER, HOSTED = "X-User", "org/hosted"

#: Fields of the access log, and those of a record that have another name.
SAME = (
    *(
        "id",
        "client",
        "method",
        "path",
        "dialect",
        "status",
        "stream",
        "bytes",
        "state",
        "queue_ms",
        "first_byte_ms",
    ),
    "total_ms",
)
NULLABLE = (
    "token",
    "user",
    "model",
    "upstream",
    "error",
    "estimated",
    "cached_tokens",
    "cache_write_tokens",
)
RENAMED = {
    "prompt_eval_count": "prompt_tokens",
    "eval_count": "completion_tokens",
    "attempts": "retries",
}
S = 1_000_000_000
USED = {"prompt_eval_count": 11, "eval_count": 5, "done": True, "done_reason": "stop"}
TOOK = {
    "total_duration": 9 * S,
    "load_duration": 2 * S,
    "prompt_eval_duration": S // 2,
    "eval_duration": S,
}


box = module_fixture(lambda: Box("box1", ["m"]))


provider = module_fixture(lambda: Provider(row(HOSTED)))


def open_gateway(box: Box, provider: Provider) -> LocalGateway:
    config = {
        "auth": {
            "generate_tokens": [
                {"name": "team", "token": TOKEN, "users": {"header": USER_HEADER}},
                {"name": "once", "token": ONCE, "limits": {"requests_per_minute": 1}},
                {"name": "reader", "token": READER, "scopes": ["read"]},
            ],
            "manage_tokens": [{"name": "admin", "token": ADMIN}],
        },
        "upstreams": [
            box.declared | {"gpu_hour_price": 3.6},
            {"name": "lab", "kind": "openai", "base_url": provider.base_url},
        ],
        "models": {
            "short": {"target": "box1:m", "clamp": {"num_ctx": 1024}},
            "priced": {
                "target": f"lab:{HOSTED}",
                "price": {"input": 2, "cached_input": 0.5, "output": 4},
            },
        },
        "timeouts": {"first_byte_s": 0.3, "idle_s": 0.3},
        "records": NO_DATABASE,
    }
    return LocalGateway(config, records=True, over_sockets=True)


shared_gateway = module_fixture(open_gateway)


@pytest.fixture
def gateway(shared_gateway: LocalGateway, box: Box, provider: Provider) -> LocalGateway:
    box.clear()
    provider.clear()
    return shared_gateway


def new_id() -> str:
    return secrets.token_hex(8)


def send(
    gateway: LocalGateway, path: str, body: Any, token: str = TOKEN, **headers: str
) -> tuple[str, Answer]:
    """One request with an id of its own, and its answer."""
    name = new_id()
    method = "GET" if body is None else "POST"
    sent = (
        bearer(token)
        | {"X-Request-Id": name}
        | {key.replace("_", "-"): value for key, value in headers.items()}
    )
    return name, gateway.request(method, path, body, sent)


def check_lines(gateway: LocalGateway, request_id: str) -> dict[str, Any]:
    """Returns the record of a request, which has one beginning, one end, and what its line
    of the access log has."""
    record, line = end_line(gateway, request_id), access_line(gateway, request_id)
    expected = {name: record[name] for name in SAME} | {
        name: record[name] or None for name in NULLABLE
    }
    expected |= {name: record[other] for name, other in RENAMED.items()}
    expected |= {name: record[name] or None for name in ("clamped", "truncated")}
    expected["attempts"] = record["retries"] or None
    assert {name: value for name, value in line.items() if name != "time"} == expected
    return record


def excerpt(record: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in expected}


# --- Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize("face", [*FACES.values(), *EMBEDDINGS.values()], ids=[*FACES, *EMBEDDINGS])
def test_a_record_has_what_the_access_log_has(
    gateway: LocalGateway, box: Box, face: Face, stream: bool
) -> None:
    body = face.body | ({} if face in EMBEDDINGS.values() else {"stream": stream})
    name, answer = send(gateway, face.path, body, X_User="ann@example.org")
    record = check_lines(gateway, name)
    expected = {
        "token": "team",
        "user": "ann@example.org",
        "trusted_user": "ann@example.org",
        "model": "m",
    }
    expected |= {
        "state": "ok",
        "status": 200,
        "upstream": "box1",
        "route": face.path,
        "is_known_model": True,
    }
    assert excerpt(record, expected) == expected
    assert (answer.status, [each["state"] for each in record["attempts"]]) == (200, ["ok"])
    assert 0 <= record["attempts"][0]["started_ms"] <= record["total_ms"]
    assert record["gpu_ms"] is not None and record["cost"] == pytest.approx(
        record["gpu_ms"] * 3.6 / 3_600_000, rel=0.3
    )
    assert abs(time.time() - record["started_at"]) < 60


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_gpu_time_is_what_ollama_measured(
    gateway: LocalGateway, box: Box, face: Face, stream: bool
) -> None:
    last = face.line | {"done": True} | USED | TOOK
    box.script(face.upstream_path, [Json(last)] if not stream else [Lines([face.line, last])])
    name, _ = send(gateway, face.path, face.body | {"stream": stream})
    record = check_lines(gateway, name)
    expected = {
        "gpu_ms": 3500.0,
        "load_ms": 2000.0,
        "prompt_tokens": 11,
        "completion_tokens": 5,
        "cost": 0.0035,
    }
    assert excerpt(record, expected) == expected
    assert record["total_ms"] < 3000 and excerpt(
        record["attempts"][0], {"gpu_ms": 0, "load_ms": 0}
    ) == {
        "gpu_ms": 3500.0,
        "load_ms": 2000.0,
    }


@pytest.mark.parametrize("face", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_embeddings_have_gpu_time(gateway: LocalGateway, box: Box, face: Face) -> None:
    vectors = [[0.5] * 3000]
    took = {"total_duration": 3 * S, "load_duration": 2 * S, "prompt_eval_count": 4}
    box.script("/api/embed", [Json({"model": "m", "embeddings": vectors, **took})])
    name, _ = send(gateway, face.path, face.body)
    expected = {"gpu_ms": 3000.0, "load_ms": 2000.0, "prompt_tokens": 4}
    assert excerpt(check_lines(gateway, name), expected) == expected


def test_several_answers_have_an_attempt_each(gateway: LocalGateway, box: Box) -> None:
    box.script("/api/chat", *[[Json(CHAT_LINE | USED | TOOK)]] * 3)
    name, answer = send(gateway, "/v1/chat/completions", FACES["openai chat"].body | {"n": 3})
    record = check_lines(gateway, name)
    assert (answer.status, len(record["attempts"]), record["completion_tokens"]) == (200, 3, 15)
    # One of them has caused the load, the others have waited for it.
    assert (record["gpu_ms"], record["load_ms"]) == (3500.0 + 2 * 1500.0, 2000.0)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/api/chat"], ids=["passed through", "translated"]
)
def test_a_provider_has_a_price_for_tokens_and_the_duration_as_gpu_time(
    gateway: LocalGateway, provider: Provider, path: str, stream: bool
) -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    provider.script("/v1/chat/completions", said(stream=stream, usage=usage))
    name, _ = send(gateway, path, FACES["native chat"].body | {"model": "priced", "stream": stream})
    record = check_lines(gateway, name)
    expected = {
        "prompt_tokens": 1000,
        "cached_tokens": 400,
        "completion_tokens": 500,
        "upstream": "lab",
    }
    expected |= {"model": "priced", "target": HOSTED, "load_ms": None}
    assert excerpt(record, expected) == expected
    assert record["cost"] == pytest.approx((600 * 2 + 400 * 0.5 + 500 * 4) / 1e6)
    assert 0 < record["gpu_ms"] == record["attempts"][0]["total_ms"] <= record["total_ms"]


def test_a_transcription_is_recorded(gateway: LocalGateway, provider: Provider) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
    provider.script("/v1/audio/transcriptions", [Json({"text": ANSWER, "usage": usage})])
    content_type, body = write_form(
        [Part("model", b"priced"), Part("file", b"RIFF", "a.wav", "audio/wav")]
    )
    name, answer = send(gateway, "/v1/audio/transcriptions", body, Content_Type=content_type)
    expected = {
        "prompt_tokens": 14,
        "completion_tokens": 3,
        "target": HOSTED,
        "route": "/v1/audio/transcriptions",
    }
    record = check_lines(gateway, name)
    assert (answer.status, excerpt(record, expected)) == (200, expected)
    assert record["cost"] == pytest.approx((14 * 2 + 3 * 4) / 1e6) and record["gpu_ms"] > 0


def test_a_repeated_attempt_has_its_own_outcome(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(
        "/v1/chat/completions", [Json({"error": {"message": "busy"}}, 503)], [Json(completion())]
    )
    name, answer = send(
        gateway, "/v1/chat/completions", FACES["openai chat"].body | {"model": HOSTED}
    )
    record = check_lines(gateway, name)
    assert (answer.status, record["retries"]) == (200, ["lab: 503", "lab: ok"])
    first, second = record["attempts"]
    assert [first["state"], second["state"]] == ["upstream_error", "ok"]
    assert second["started_ms"] >= first["started_ms"] + first["total_ms"] > 0
    assert record["gpu_ms"] == pytest.approx(first["gpu_ms"] + second["gpu_ms"], abs=0.2)


def test_clamps_and_cut_answers_are_recorded(gateway: LocalGateway, box: Box) -> None:
    box.script("/api/chat", [Json(CHAT_LINE | USED | {"done_reason": "length"})])
    name, _ = send(
        gateway,
        "/api/chat",
        FACES["native chat"].body
        | {"model": "short", "stream": False, "options": {"num_ctx": 9999}},
    )
    expected = {
        "model": "short",
        "target": "m",
        "clamped": ["num_ctx=1024"],
        "truncated": ["answer"],
    }
    assert excerpt(check_lines(gateway, name), expected) == expected


def test_requests_that_name_no_model_are_recorded_without_gpu_time(gateway: LocalGateway) -> None:
    for path in ("/api/tags", "/v1/models", "/api/version"):
        name, _ = send(gateway, path, None)
        expected = {
            "route": path,
            "model": "",
            "is_known_model": False,
            "gpu_ms": None,
            "cost": None,
            "state": "ok",
        }
        assert excerpt(check_lines(gateway, name), expected) == expected


# --- Failures -------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """How the box fails, and what is recorded."""

    script: Script
    status: int
    state: str
    error: str


FAILURES = {
    "refused": Failure([Json({"error": "bad option"}, 400)], 400, "refused", "upstream_refused"),
    "no answer": Failure([Cut()], 502, "upstream_error", "upstream_cut"),
    "reset": Failure([Reset()], 502, "upstream_error", "upstream_cut"),
    "silence": Failure([WaitForPeerClose(5)], 504, "timeout", "upstream_timeout"),
    "cut stream": Failure([Lines([CHAT_LINE]), Cut()], 200, "upstream_error", "upstream_cut"),
    "silent stream": Failure(
        [Lines([CHAT_LINE]), WaitForPeerClose(5)], 200, "timeout", "upstream_timeout"
    ),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize(
    "name", ["native chat", "openai chat", "openai responses", "anthropic messages"]
)
def test_failures_of_an_upstream_are_recorded(
    gateway: LocalGateway, box: Box, name: str, failure: Failure
) -> None:
    box.script("/api/chat", *[failure.script] * 4)
    face = FACES[name]
    request_id, answer = send(gateway, face.path, face.body | {"stream": True})
    record = check_lines(gateway, request_id)
    assert (answer.status, record["status"], record["state"]) == (
        failure.status,
        failure.status,
        failure.state,
    )
    last = record["attempts"][-1]
    assert last["state"] == failure.state
    # The box was busy with it all the time, as far as anybody knows.
    assert last["gpu_ms"] == last["total_ms"] and record["load_ms"] is None and record["cost"] > 0


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize(
    "name", ["native chat", "openai chat", "openai responses", "anthropic messages"]
)
def test_a_client_that_leaves_is_recorded(
    gateway: LocalGateway, box: Box, name: str, stream: bool
) -> None:
    box.script(
        "/api/chat", [Lines([CHAT_LINE]), WaitForPeerClose(5)] if stream else [WaitForPeerClose(5)]
    )
    face, request_id = FACES[name], new_id()
    body, headers = face.body | {"stream": stream}, {"X-Request-Id": request_id}
    with gateway.start(face.path, body, token=TOKEN, headers=headers) as answer:
        box.wait_for_request(1, "/api/chat")
        if stream:
            answer.read_head()
    record = check_lines(gateway, request_id)
    assert (record["state"], [each["state"] for each in record["attempts"]]) == (
        "client_gone",
        ["client_gone"],
    )
    assert record["gpu_ms"] > 0


REFUSED: dict[str, tuple[str, Any, int, str]] = {
    "no json": ("/api/chat", b"{", 400, "invalid_request"),
    "no route": ("/nope", None, 404, "not_found"),
    "no model": (
        "/v1/chat/completions",
        {"model": "other", "messages": []},
        404,
        "model_not_found",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests_are_recorded(gateway: LocalGateway, case: str) -> None:
    path, body, status, error = REFUSED[case]
    name, answer = send(gateway, path, body)
    record = check_lines(gateway, name)
    expected = {
        "status": status,
        "state": "refused",
        "attempts": [],
        "gpu_ms": None,
        "is_known_model": False,
    }
    assert (answer.status, excerpt(record, expected)) == (status, expected)
    assert record["error"] in (error, "invalid_request")


def test_refusals_by_a_limit_are_recorded(gateway: LocalGateway) -> None:
    face = FACES["openai chat"]
    ids = [send(gateway, face.path, face.body, ONCE)[0] for _ in range(3)]
    records = [check_lines(gateway, name) for name in ids]
    refused = [each for each in records if each["state"] == "refused"]
    assert refused and {(each["status"], each["error"], each["token"]) for each in refused} == {
        (429, "rate_limit_exceeded", "once")
    }
    assert all(each["attempts"] == [] and each["is_known_model"] for each in refused)


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/api/tags", "wrong"),
        ("/api/chat", READER),
        ("/health", TOKEN),
        ("/livez", TOKEN),
        ("/", TOKEN),
    ],
    ids=["wrong token", "no scope", "health", "livez", "root"],
)
def test_requests_that_are_not_admitted_have_a_line_in_the_access_log_only(
    gateway: LocalGateway, path: str, token: str
) -> None:
    name, _ = send(gateway, path, FACES["native chat"].body if path == "/api/chat" else None, token)
    access_line(gateway, name)
    later, _ = send(gateway, "/api/tags", None)
    check_lines(gateway, later)
    assert lines_with(gateway, "begin", name) + lines_with(gateway, "end", name) == []


def test_work_on_models_is_recorded_without_gpu_time(gateway: LocalGateway, box: Box) -> None:
    box.script("/api/pull", [Lines([{"status": "pulling"}, {"status": "success"}])])
    name, _ = send(gateway, "/api/pull", {"model": "new"}, ADMIN)
    expected = {
        "token": "admin",
        "route": "/api/pull",
        "state": "ok",
        "upstream": "box1",
        "cost": None,
        "gpu_ms": 0.0,
    }
    assert excerpt(check_lines(gateway, name), expected) == expected


def test_a_spool_that_cannot_be_written_is_reported_and_fails_no_request(box: Box) -> None:
    config = {
        "auth": {"manage_tokens": [{"name": "admin", "token": ADMIN}]},
        "upstreams": [box.declared],
        "records": NO_DATABASE,
    }
    box.clear()
    body = FACES["openai chat"].body

    def events() -> list[str]:
        return [
            each["event"]
            for each in gateway.log_lines("events")
            if each["event"].startswith("usage_")
        ]

    with LocalGateway(config, records=True) as gateway:
        place = gateway.state_directory / "usage"
        place.write_text("")
        answers = [send(gateway, "/v1/chat/completions", body, ADMIN)[1] for _ in range(3)]
        assert [each.status for each in answers] == [200] * 3
        wait_until(events, 5, "no event")
        problems = gateway.ask("/health", token=ADMIN).json()["problems"]
        assert any("6 lines" in each["what"] and str(place) in each["mend"] for each in problems)
        place.unlink()

        def is_written() -> bool:
            name, _ = send(gateway, "/v1/chat/completions", body, ADMIN)
            access_line(gateway, name)
            # The first one may have lost its beginning.
            found = [lines_with(gateway, kind, name) for kind in ("begin", "end")]
            return all(found) and bool(check_lines(gateway, name))

        wait_until(is_written, 10, "still not written")
        wait_until(lambda: len(events()) > 1, 5)
        assert events() == ["usage_not_written", "usage_written_again"]
        problems = gateway.ask("/health", token=ADMIN).json()["problems"]
        assert not any("lines" in each["what"] for each in problems)


# --- Nothing of what is said ----------------------------------------------------------------------


def test_no_prompt_no_answer_and_no_token_is_noted(box: Box, provider: Provider) -> None:
    box.clear()
    provider.clear()
    messages = [{"role": "user", "content": PROMPT}]
    said_there = CHAT_LINE | {"message": {"role": "assistant", "content": ANSWER}} | USED
    box.script("/api/chat", *[[Json(said_there)]] * 3)
    provider.script("/v1/chat/completions", said(ANSWER, stream=False), said(PROMPT, stream=True))
    asked: list[tuple[str, Any, dict[str, str]]] = [
        ("/api/chat", {"model": "m", "messages": messages, "stream": False}, {}),
        ("/v1/chat/completions", {"model": "m", "messages": messages, "user": ADMIN}, {}),
        (
            "/v1/messages",
            {"model": "m", "max_tokens": 9, "system": PROMPT, "messages": messages},
            {},
        ),
        ("/v1/chat/completions", {"model": HOSTED, "messages": messages}, {}),
        ("/v1/chat/completions", {"model": HOSTED, "messages": messages, "stream": True}, {}),
        ("/v1/chat/completions", {"model": ONCE, "messages": messages}, {}),
        (f"/v1/models/{ADMIN}", None, {}),
        (f"/k/{TOKEN}/api/tags", None, {}),
        ("/api/tags", None, {"X_User": ADMIN}),
        ("/api/chat", PROMPT.encode(), {}),
    ]
    with open_gateway(box, provider) as gateway:
        for path, body, headers in asked:
            name, _ = send(gateway, path, body, **headers)
            check_lines(gateway, name)
        text = json.dumps(read_spool(gateway.state_directory / "usage"))
    assert [each for each in (PROMPT, ANSWER, TOKEN, ADMIN, ONCE, READER) if each in text] == []
