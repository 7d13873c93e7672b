"""OpenAI's clients on an upstream that takes OpenAI's bytes: these pass as they are, but for the
model's name, and for the usage that only the gateway asked for. Whatever ends otherwise than it
should is an error that clients notice."""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import Any

import pytest

from tests.app import passing
from tests.app.passing import (
    ALIAS,
    ANSWER,
    ASKED,
    DONE,
    HEARTBEAT_S,
    OWN,
    STREAM,
    USAGE,
    WISHES,
    ask,
    asked,
    chunk,
    events,
    streamed,
)
from tests.golden import face
from tests.golden.face import TOKEN, frames, post
from tests.rig import SSE
from tests.rig.calls import KEEP_ALIVE, access_line
from tests.rig.errors import OPENAI, assert_error
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    Head,
    Json,
    Script,
    Sse,
    Wait,
    WaitFor,
    WaitForPeerClose,
    Whole,
)
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, COMPLETIONS, EMBEDDINGS, KEY, Provider

NOTICED_S = 1.0
JSON_HEAD = {"Content-Type": "application/json"}
COUNTED: dict[str, Any] = {"stream_options": {"include_usage": True}}


#: Fixtures.
shared_provider = passing.shared_provider
shared_gateway, gateway = passing.shared_gateway, passing.gateway


# --- Bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [None, 1])
def test_stream_passes_byte_for_byte(
    gateway: LocalGateway, provider: Provider, edges: int | None
) -> None:
    provider.script(CHAT, streamed(STREAM, edges))
    answer = ask(gateway, **COUNTED)
    assert (answer.status, answer.body, answer.complete) == (200, STREAM, True)
    assert answer.headers.get("content-type") == "text/event-stream"
    assert answer.headers.get("x-accel-buffering") == "no"
    assert answer.headers.get("cache-control") == "no-store"


@pytest.mark.parametrize("edges", [None, 1])
def test_only_the_name_of_the_model_is_another(
    gateway: LocalGateway, provider: Provider, edges: int | None
) -> None:
    provider.script(CHAT, streamed(STREAM, edges))
    assert ask(gateway, ALIAS, **COUNTED).body == STREAM.replace(OWN.encode(), ALIAS.encode())
    assert asked(provider)[0].json() == {"model": OWN, "messages": ASKED, "stream": True, **COUNTED}


@pytest.mark.parametrize("name", [OWN, f"lab:{OWN}", f"lab/{OWN}", ALIAS, "limited"])
def test_client_reads_the_name_that_it_used(
    gateway: LocalGateway, provider: Provider, name: str
) -> None:
    provider.script(CHAT, [Json(ANSWER)])
    answer = ask(gateway, name, stream=False)
    assert answer.json() == ANSWER | {"model": name}
    assert asked(provider)[0].json()["model"] == OWN


def test_default_model_is_asked_where_none_is_named(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, [Json(ANSWER)])
    assert post(gateway, CHAT, {"messages": ASKED}).json() == ANSWER | {"model": ALIAS}
    assert asked(provider)[0].json() == {"messages": ASKED, "model": OWN}


def test_request_passes_byte_for_byte(gateway: LocalGateway, provider: Provider) -> None:
    unknown = '"audio": {"voice": "x"}, "web_search_options": {}, "n": 2, "x_new": 1.50, "modalities": ["audio"]'
    tools = '"tools": [{"type": "hosted"}], "logit_bias": {"5": -1e2}, "top_k": 5, "reasoning": {"exclude": true}'
    sent = (
        f'{{ "model":"{OWN}",\n"messages": [{{"role": "user", "content": "\\u00e9"}}], '
        f"{unknown}, {tools} }}"
    )
    provider.script(CHAT, [Json(ANSWER)])
    assert post(gateway, CHAT, sent.encode(), **JSON_HEAD).status == 200
    [seen] = asked(provider)
    assert seen.body == sent.encode()
    assert seen.header("authorization") == f"Bearer {KEY}"
    assert seen.header("content-type") == "application/json"
    assert TOKEN not in str(seen.headers)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_single_answer_passes_byte_for_byte(
    gateway: LocalGateway, provider: Provider, request_id: str, path: str
) -> None:
    kind = "data" if path == EMBEDDINGS else "choices"
    body = (
        b"\n\n"
        + json.dumps({kind: ANSWER["choices"], "model": OWN, "x": 1e16, "usage": USAGE}).encode()
    )
    provider.script(path, [Whole(body, 200, JSON_HEAD)])
    wish = WISHES[path] | ({"input": [[1, 2]]} if path == EMBEDDINGS else {})
    answer = post(gateway, path, {"model": OWN} | wish, **{"X-Request-Id": request_id})
    assert (answer.status, answer.body, answer.headers.get("content-type")) == (
        200,
        body,
        "application/json",
    )
    line = access_line(gateway, request_id)
    assert (line["prompt_eval_count"], line["eval_count"], line["upstream"]) == (7, 3, "lab")


def test_large_answer_passes(gateway: LocalGateway, provider: Provider) -> None:
    vectors = [
        {"index": index, "embedding": [0.125] * 512, "object": "embedding"} for index in range(1000)
    ]
    body = json.dumps({"object": "list", "data": vectors, "model": OWN, "usage": USAGE}).encode()
    provider.script(EMBEDDINGS, [Whole(body, 200, JSON_HEAD)])
    answer = ask(gateway, ALIAS, EMBEDDINGS, input=["x"] * 3)
    assert answer.body == body.replace(OWN.encode(), ALIAS.encode())


# --- Usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}]
)
def test_usage_is_counted_and_not_shown_to_who_did_not_ask(
    gateway: LocalGateway, provider: Provider, request_id: str, said: dict[str, Any]
) -> None:
    told = [chunk("a", usage=None), chunk("", "length", usage=None)]
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 5}}
    provider.script(CHAT, [Sse([*told, {"choices": [], "usage": usage}])])
    answer = post(
        gateway,
        CHAT,
        {"model": OWN, "messages": ASKED, "stream": True} | said,
        **{"X-Request-Id": request_id},
    )
    assert frames(answer.body) == [chunk("a"), chunk("", "length"), "[DONE]"]
    assert asked(provider)[0].json()["stream_options"] == {"include_usage": True}
    line = access_line(gateway, request_id)
    assert (line["prompt_eval_count"], line["eval_count"]) == (7, 3)
    assert (line["cached_tokens"], line["cache_write_tokens"]) == (5, None)
    assert line["truncated"] == ["answer"]


@pytest.mark.parametrize(
    "last",
    [
        {"choices": [], "usage": USAGE},
        {"choices": None, "usage": USAGE},
        chunk("", "stop", usage=USAGE),
    ],
    ids=["own chunk", "null", "with the end"],
)
def test_usage_is_shown_to_who_asked(
    gateway: LocalGateway, provider: Provider, last: dict[str, Any]
) -> None:
    told = [chunk("a", usage=None), chunk("", "stop", usage=None), last]
    provider.script(CHAT, [Sse(told)])
    assert frames(ask(gateway, **COUNTED).body) == [*told, "[DONE]"]


def test_tokens_that_nobody_counts_are_estimated(
    gateway: LocalGateway, provider: Provider, request_id: str
) -> None:
    provider.script(CHAT, [Sse([chunk("a"), chunk("b"), chunk("", "stop")])])
    body = {"model": OWN, "messages": ASKED, "stream": True}
    assert post(gateway, CHAT, body, **{"X-Request-Id": request_id}).status == 200
    line = access_line(gateway, request_id)
    assert (line["eval_count"], line["estimated"]) == (4, True)
    assert line["prompt_eval_count"] > 0


@pytest.mark.parametrize(
    ("fields", "user"),
    [({"user": "ann"}, "ann"), ({"user": "ann", "safety_identifier": "hash-1"}, "hash-1")],
)
def test_the_user_that_the_body_names_is_logged(
    gateway: LocalGateway, provider: Provider, request_id: str, fields: dict[str, str], user: str
) -> None:
    provider.script(CHAT, [Json(ANSWER)])
    body = {"model": OWN, "messages": ASKED, **fields}
    assert post(gateway, CHAT, body, **{"X-Request-Id": request_id}).status == 200
    assert access_line(gateway, request_id)["user"] == user
    assert asked(provider)[0].json() == body


# --- What does not pass ---------------------------------------------------------------------------

OURS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"options": {"temperature": 0.5}}, {"temperature": 0.5}),
    ({"num_ctx": 4096}, {}),
    ({"keep_alive": "5m"}, {}),
    ({"timeout_ms": 5000}, {}),
    ({"exclude_reasoning": True}, {}),
    ({"truncate": True}, {}),
]


@pytest.mark.parametrize(("said", "meant"), OURS, ids=[next(iter(said)) for said, _ in OURS])
def test_what_only_the_gateway_understands_is_translated(
    gateway: LocalGateway, provider: Provider, said: dict[str, Any], meant: dict[str, Any]
) -> None:
    provider.script(CHAT, [Json(ANSWER)])
    answer = ask(gateway, stream=False, **said)
    assert answer.json()["choices"][0]["message"]["content"] == "hi"
    body = asked(provider)[0].json()
    assert body.items() >= meant.items()
    assert not body.keys() & said.keys()


def test_rules_of_the_operator_count(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, [Json(ANSWER)])
    assert ask(gateway, "ruled", stream=False).json()["model"] == "ruled"
    assert asked(provider)[0].json()["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"model": 5}, "model"),
    ],
)
def test_what_the_gateway_decides_by_is_checked(
    gateway: LocalGateway, provider: Provider, fields: dict[str, Any], param: str
) -> None:
    answer = ask(gateway, **fields)
    assert_error(answer, OPENAI, 400)
    assert answer.json()["error"]["param"] == param
    assert asked(provider) == []


def test_key_in_another_case_is_refused(gateway: LocalGateway, provider: Provider) -> None:
    body = {"model": OWN, "Model": "other", "messages": ASKED}
    assert_error(post(gateway, CHAT, body), OPENAI, 400)
    assert asked(provider) == []


def test_more_texts_than_the_provider_takes_at_once_go_in_batches(
    gateway: LocalGateway, provider: Provider
) -> None:
    answer = ask(gateway, ALIAS, EMBEDDINGS, input=["a", "b", "c", "d"])
    assert [row["index"] for row in answer.json()["data"]] == [0, 1, 2, 3]
    assert [seen.json()["input"] for seen in asked(provider, EMBEDDINGS)] == [
        ["a", "b", "c"],
        ["d"],
    ]


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize(
    ("status", "body", "seen"),
    [
        (
            400,
            {"error": {"message": f"{OWN} is unwell", "type": "x", "param": "n", "code": "c"}},
            400,
        ),
        (404, {"error": {"message": f"The model `{OWN}` does not exist"}}, 404),
        (422, {"detail": [{"msg": f"{OWN} field required"}]}, 400),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, 502),
        (402, {"error": {"message": "Insufficient Balance"}}, 502),
        (403, {"error": {"message": "key not allowed"}}, 502),
        (400, {"object": "error", "message": f"{OWN} can't", "code": 400}, 400),
    ],
)
def test_error_of_the_provider_has_our_shape(
    gateway: LocalGateway,
    provider: Provider,
    status: int,
    body: dict[str, Any],
    seen: int,
    stream: bool,
) -> None:
    provider.script(CHAT, [Json(body, status)])
    text = assert_error(ask(gateway, ALIAS, stream=stream), OPENAI, seen)
    assert OWN not in text and KEY not in text
    assert seen == 502 or ALIAS in text


def test_busy_provider_says_how_long_to_wait(gateway: LocalGateway, provider: Provider) -> None:
    slow = {"error": {"message": "slow down", "code": "insufficient_quota"}}
    provider.script(CHAT, [Json(slow, 429, {"Retry-After": "7"})])
    answer = ask(gateway)
    assert assert_error(answer, OPENAI, 429) == "slow down"
    assert answer.headers.get("retry-after") == "7"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize(
    "script",
    [
        [Whole(b"<html>hello</html>", 200, {"Content-Type": "text/html"})],
        [Json(ANSWER, headers={"Content-Encoding": "gzip"})],
        [Whole(b"", 302, {"Location": "http://127.0.0.1:1/"})],
        [Json({"error": {"message": "boom", "code": 502}})],
        [Json({"code": 20012, "message": "boom"})],
        [Json([1])],
        [Head(200, JSON_HEAD), Chunk(b'{"id":'), Cut()],
        [Head(200, SSE), Cut()],
    ],
    ids=["page", "packed", "redirect", "error", "code", "list", "cut answer", "cut stream"],
)
def test_answer_that_is_none_is_an_error(
    gateway: LocalGateway, provider: Provider, script: Script, stream: bool
) -> None:
    provider.script(CHAT, script)
    text = assert_error(ask(gateway, stream=stream), OPENAI, 502)
    assert "html" not in text


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
def test_other_kind_of_answer_than_was_asked_for_is_an_error(
    gateway: LocalGateway, provider: Provider, stream: bool
) -> None:
    provider.script(CHAT, [Json(ANSWER)] if stream else streamed(STREAM))
    assert_error(ask(gateway, stream=stream), OPENAI, 502)


REPORTS = {
    "object": {"error": {"message": f"boom of {OWN}", "code": 502}},
    "text": {"error": f"boom of {OWN}"},
    "in a choice": chunk("", "error", error={"message": f"boom of {OWN}"}),
}
each_report = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)


def assert_failed(answer: Answer, text: str = "") -> list[Any]:
    """A stream that ends with an error and no good sign; returns what came before."""
    assert (answer.status, answer.complete) == (200, True)
    *before, last = frames(answer.body)
    assert last.keys() == {"error"}
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert text in last["error"]["message"]
    assert b"[DONE]" not in answer.body
    return before


@each_report
def test_error_in_the_middle_is_the_last_frame(
    gateway: LocalGateway, provider: Provider, request_id: str, report: dict[str, Any]
) -> None:
    provider.script(CHAT, [Sse([chunk("a"), report])])
    body = {"model": ALIAS, "messages": ASKED, "stream": True}
    answer = post(gateway, CHAT, body, **{"X-Request-Id": request_id})
    assert assert_failed(answer, f"boom of {ALIAS}") == [chunk("a", model=ALIAS)]
    assert access_line(gateway, request_id)["state"] == "upstream_error"


@each_report
def test_error_before_anything_else_keeps_a_status(
    gateway: LocalGateway, provider: Provider, report: dict[str, Any]
) -> None:
    provider.script(
        CHAT, [Head(200, SSE), Chunk(b": PROCESSING\n\n"), Wait(0.05), Chunk(events(report) + DONE)]
    )
    assert "boom" in assert_error(ask(gateway), OPENAI, 502)


@pytest.mark.parametrize("stream", [True, False])
def test_refusal_is_not_read_for_ever(
    gateway: LocalGateway, provider: Provider, stream: bool
) -> None:
    provider.script(
        CHAT, [Head(400, JSON_HEAD), Chunk(b'{"error":' * (1 << 20)), WaitForPeerClose()]
    )
    assert len(assert_error(ask(gateway, stream=stream), OPENAI, 400)) < 1000


@pytest.mark.parametrize(
    "rest", [b"", b'data: {"id":"c', b"data: [DO"], ids=["between", "in a chunk", "in the end"]
)
def test_cut_is_an_error_behind_whole_events(
    gateway: LocalGateway, provider: Provider, request_id: str, rest: bytes
) -> None:
    provider.script(CHAT, [Head(200, SSE), Chunk(events(chunk("a")) + rest), Cut()])
    body = {"model": OWN, "messages": ASKED, "stream": True}
    answer = post(gateway, CHAT, body, **{"X-Request-Id": request_id})
    assert assert_failed(answer) == [chunk("a")]
    line = access_line(gateway, request_id)
    assert (line["state"], line["error"]) == ("upstream_error", "upstream_cut")


def test_end_without_a_reason_is_an_error(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, [Sse([chunk("a")], done=False)])
    assert assert_failed(ask(gateway)) == [chunk("a")]


@pytest.mark.parametrize("end", [[], [Cut()], [WaitForPeerClose()]], ids=["end", "cut", "silence"])
def test_end_with_a_reason_alone_gets_its_done(
    gateway: LocalGateway, provider: Provider, request_id: str, end: Script
) -> None:
    provider.script(CHAT, [Sse([chunk("a"), chunk("", "stop")], done=False), *end])
    body = {"model": OWN, "messages": ASKED, "stream": True}
    answer = post(gateway, CHAT, body, **{"X-Request-Id": request_id})
    assert frames(answer.body) == [chunk("a"), chunk("", "stop"), "[DONE]"]
    assert access_line(gateway, request_id)["state"] == "ok"


def test_one_reason_is_not_enough_for_two_answers(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, [Sse([chunk("a"), chunk("", "stop")], done=False)])
    assert_failed(ask(gateway, n=2))


def test_last_event_without_its_blank_line_counts(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, streamed(STREAM.removesuffix(b"\n\n")))
    assert ask(gateway, **COUNTED).body == STREAM


def test_silence_is_an_error_at_its_limit(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, [Head(200, SSE), Chunk(events(chunk("a"))), WaitForPeerClose()])
    answer = ask(gateway, "limited")
    assert assert_failed(answer, "was silent for 0.3 s") == [chunk("a", model="limited")]


# --- Time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [[], [Head(200, SSE)]], ids=["no head", "no event"])
def test_client_that_waits_gets_signs_of_life(
    gateway: LocalGateway, provider: Provider, before: Script
) -> None:
    script = [
        *before,
        Wait(HEARTBEAT_S * 2.5),
        *([] if before else [Head(200, SSE)]),
        Chunk(STREAM),
    ]
    provider.script(CHAT, script)
    body = ask(gateway, **COUNTED).body
    assert body.endswith(STREAM)
    assert body.removesuffix(STREAM) in (KEEP_ALIVE, KEEP_ALIVE * 2)


@pytest.mark.parametrize("edge", [1, 20, 150])
def test_sign_of_life_is_never_inside_an_event(
    gateway: LocalGateway, provider: Provider, edge: int
) -> None:
    at = STREAM.index(b"data:", 20) + edge
    provider.script(
        CHAT, [Head(200, SSE), Chunk(STREAM[:at]), Wait(HEARTBEAT_S * 2.5), Chunk(STREAM[at:])]
    )
    body = ask(gateway, **COUNTED).body
    assert KEEP_ALIVE in body
    assert body.replace(KEEP_ALIVE, b"") == STREAM
    assert frames(body) == frames(STREAM)


def test_refusal_behind_signs_of_life_is_a_frame(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, [Wait(HEARTBEAT_S * 2.5), Json({"error": {"message": "boom"}}, 400)])
    answer = ask(gateway)
    assert answer.body.startswith(KEEP_ALIVE)
    assert assert_failed(answer, "boom") == []


def test_events_are_not_kept_waiting(gateway: LocalGateway, provider: Provider) -> None:
    goes_on = threading.Event()
    first, second = events(chunk("a")), events(chunk("b"))
    provider.script(CHAT, [Head(200, SSE), Chunk(first), WaitFor(goes_on, 10), Chunk(second)])
    body = {"model": OWN, "messages": ASKED, "stream": True}
    with gateway.open_stream("POST", CHAT, body, bearer(TOKEN)) as stream:
        assert stream.read_some() == first
        goes_on.set()
        assert stream.read_some().startswith(second)


def test_connection_is_kept_after_a_whole_stream(provider: Provider) -> None:
    provider.script(CHAT, streamed(STREAM))
    with passing.provider_gateway(
        provider, partial(face.local_gateway, over_sockets=True)
    ) as gateway:
        for _ in range(6):
            assert ask(gateway).status == 200
    assert len({seen.connection for seen in asked(provider)}) == 1


def test_refusal_before_the_first_byte_is_tried_again(
    gateway: LocalGateway, provider: Provider, request_id: str
) -> None:
    busy = [Json({"error": {"message": "busy"}}, 503)]
    provider.script(CHAT, busy, streamed(STREAM))
    assert ask(gateway, **COUNTED).body == STREAM
    assert len(asked(provider)) == 2


def test_nothing_is_tried_again_after_the_first_byte(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, [Head(200, SSE), Chunk(events(chunk("a"))), Cut()])
    assert_failed(ask(gateway))
    assert len(asked(provider)) == 1
