"""Calls that a request demands, and answers that have to be JSON: whatever the model makes of the
schema that it gets, the client can rely on the answer, or reads that it can't."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.golden.face import forwarded, frames, post
from tests.rig.dialects import ARGUMENTS, DIALECTS, FUNCTION, Told, Wanted
from tests.rig.fault_upstream import FaultUpstream, Json, Lines, Script
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import recording

Document = dict[str, Any]

NAME, PARAMETERS = FUNCTION["name"], FUNCTION["parameters"]
CALL = (NAME, json.dumps(ARGUMENTS))
CALLED = Told("", "", (CALL,), "tools", (20, 5))
#: A demand in the words of each API: this one tool, or any of two.
NAMED: dict[str, Any] = {
    "chat": {"type": "function", "function": {"name": NAME}},
    "responses": {"type": "function", "name": NAME},
    "messages": {"type": "tool", "name": NAME},
}
ANY = {"chat": "required", "responses": "required", "messages": {"type": "any"}}

each_dialect = pytest.mark.parametrize("name", NAMED)
each_way = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "single"])


def demand(name: str, *, one: bool, called: bool = False, **fields: Any) -> Document:
    """A request that demands a call of its one tool, or of any of its two."""
    body = DIALECTS[name].ask(Wanted(tool=True, called=called)) | fields
    if not one:
        other = copy.deepcopy(body["tools"][0])
        other.get("function", other)["name"] = "get_time"
        body["tools"] = [other, *body["tools"]]
    return body | {"tool_choice": (NAMED if one else ANY)[name]}


def read(name: str, answer: Answer) -> Told:
    assert answer.status == 200
    dialect = DIALECTS[name]
    is_stream = (answer.headers.get("Content-Type") or "").startswith("text/event-stream")
    return dialect.read_stream(answer.body) if is_stream else dialect.read_single(answer.json())


def written(content: str, stream: bool, reason: str = "stop", **message: Any) -> Script:
    """What Ollama sends for these words, in pieces if it streams."""
    done = {
        "model": "m",
        "done": True,
        "done_reason": reason,
        "prompt_eval_count": 20,
        "eval_count": 5,
    }
    message = {"role": "assistant", "content": content} | message
    if not stream:
        return [Json(done | {"message": message})]
    texts = [content[start : start + 4] for start in range(0, len(content), 4)]
    pieces = [{"role": "assistant", "content": text} for text in texts]
    lines = [{"model": "m", "message": piece, "done": False} for piece in pieces]
    return [Lines([*lines, done | {"message": message | {"content": ""}}])]


def own_call(stream: bool) -> Script:
    return written("", stream, tool_calls=[{"function": {"name": NAME, "arguments": ARGUMENTS}}])


@each_way
@each_dialect
def test_answer_by_the_schema_of_one_function_is_its_call(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", written(json.dumps(ARGUMENTS, indent=1) + "\n ", stream))
    answer = post(gateway, DIALECTS[name].path, demand(name, one=True, stream=stream))
    assert read(name, answer) == CALLED
    assert answer.headers.get("X-Ollama-Proxy-Approximated") is None
    [sent] = [seen.json() for seen in forwarded(upstream)]
    assert (sent["format"], sent["think"], len(sent["tools"])) == (PARAMETERS, False, 1)


@each_way
@each_dialect
def test_answer_by_the_choice_of_several_is_the_call_of_one(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", written(json.dumps({"name": NAME, "arguments": ARGUMENTS}), stream)
    )
    answer = post(gateway, DIALECTS[name].path, demand(name, one=False, stream=stream))
    assert read(name, answer) == CALLED
    sent = forwarded(upstream)[-1].json()
    assert [each["properties"]["name"]["const"] for each in sent["format"]["anyOf"]] == [
        "get_time",
        NAME,
    ]
    assert (list(sent["format"]["$defs"].values()), len(sent["tools"])) == (
        [PARAMETERS, PARAMETERS],
        2,
    )


PROSE = recording("chat-format-schema-single")


def said(content: str) -> Callable[[bool], Script]:
    return lambda stream: written(content, stream)


#: What a model that ignores the schema answers, and the header of the answer.
IGNORING: dict[str, tuple[Callable[[bool], Script], str | None]] = {
    "recorded prose": (said(json.loads(PROSE.response)["message"]["content"]), "tool_choice"),
    "no object": (said("[1]"), "tool_choice"),
    "broken": (said('{"unit": "C"'), "tool_choice"),
    "empty": (said(""), "tool_choice"),
    "refused": (
        lambda stream: [Json({"error": "invalid JSON schema in format"}, 500)],
        "tool_choice",
    ),
    "a call of its own": (own_call, None),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [("chat", how) for how in IGNORING]
    + [("responses", "recorded prose"), ("messages", "recorded prose")],
)
@each_way
def test_model_that_ignores_the_schema_is_asked_in_words(
    name: str, stream: bool, how: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    ignoring, approximated = IGNORING[how]
    upstream.script("/api/chat", ignoring(stream), own_call(stream))
    answer = post(gateway, DIALECTS[name].path, demand(name, one=True, stream=stream))
    assert read(name, answer) == CALLED
    assert answer.headers.get("X-Ollama-Proxy-Approximated") == approximated
    last = forwarded(upstream)[-1].json()
    assert ("format" in last) is (approximated is None)
    assert "by calling" in last["messages"][-1]["content"] or not approximated


@each_way
@each_dialect
def test_call_that_a_limit_has_cut_is_no_call(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", written('{"unit": "C", "ci', stream, "length"))
    answer = post(gateway, DIALECTS[name].path, demand(name, one=True, stream=stream))
    assert read(name, answer) == Told('{"unit": "C", "ci', "", (), "length", (20, 5))
    assert len(forwarded(upstream)) == 1


@each_way
@each_dialect
def test_refusal_of_the_request_itself_is_no_reason_to_ask_again(
    name: str, stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": "m does not support tools"}, 400)])
    assert post(gateway, DIALECTS[name].path, demand(name, one=True, stream=stream)).status == 400
    assert len(forwarded(upstream)) == 1


def test_every_choice_is_a_call(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", written(json.dumps(ARGUMENTS), True))
    answer = post(gateway, DIALECTS["chat"].path, demand("chat", one=True, stream=True, n=3))
    ends = [
        choice
        for frame in frames(answer.body)[:-1]
        for choice in frame["choices"]
        if choice["finish_reason"]
    ]
    assert sorted((end["index"], end["finish_reason"]) for end in ends) == [
        (i, "tool_calls") for i in range(3)
    ]


@pytest.mark.parametrize("called", [False, True], ids=["question", "after a result"])
@pytest.mark.parametrize("one", [True, False], ids=["named", "any"])
@each_way
@each_dialect
def test_demo_always_calls(
    name: str, stream: bool, one: bool, called: bool, demo_gateway: LocalGateway
) -> None:
    body = demand(name, one=one, called=called, stream=stream, model="demo")
    answer = post(demo_gateway, DIALECTS[name].path, body)
    told = read(name, answer)
    assert (told.text, told.reason, len(told.calls)) == ("", "tools", 1)
    assert answer.headers.get("X-Ollama-Proxy-Approximated") is None


@pytest.mark.parametrize(
    ("text", "is_followed"),
    [
        ('{"z": 1,\n "a": ""}', True),
        (json.loads(PROSE.response)["message"]["content"], False),
        ('{"z": 1', False),
    ],
    ids=["JSON", "recorded prose", "cut JSON"],
)
@each_way
@each_dialect
def test_answer_that_does_not_follow_the_schema_is_reported(
    name: str,
    stream: bool,
    text: str,
    is_followed: bool,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    upstream.script("/api/chat", written(text, stream))
    answer = post(
        gateway, DIALECTS[name].path, DIALECTS[name].ask(Wanted(schema=True)) | {"stream": stream}
    )
    assert read(name, answer).text == text
    in_head = answer.headers.get("X-Ollama-Proxy-Approximated") == "response_format"
    in_comment = b": the answer does not follow response_format strictly\n\n" in answer.body
    # A stream that has begun when the text turns out to be none reports it in a comment.
    assert in_head + in_comment == (not is_followed)
    assert stream or not in_comment


@pytest.mark.parametrize(
    ("fields", "think"), [({}, False), ({"think": True}, True), ({"think": "low"}, "low")]
)
@each_dialect
def test_model_does_not_think_before_json_unless_told_to(
    name: str, fields: Document, think: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    post(gateway, DIALECTS[name].path, DIALECTS[name].ask(Wanted(schema=True)) | fields)
    assert forwarded(upstream)[-1].json()["think"] == think
