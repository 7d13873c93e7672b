"""The official Python client of OpenAI on the Responses face: create, stream,
parse, and what went wrong."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.app.clients import openai_client
from tests.golden.cases import Case, cases
from tests.golden.face import forwarded
from tests.golden.responses.reading import texts
from tests.rig import NDJSON, native_chat
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json, Lines
from tests.rig.fixtures import function_fixture
from tests.rig.local import LocalGateway

CASES = {case.name: case for case in cases("responses")}
COMPLETED = [
    case
    for case in CASES.values()
    if case.is_complete and case.expected_single["status"] == "completed"
]
#: A function tool whose parameters are no strict schema is refused by the client's own helper.
STREAMABLE = [case for case in COMPLETED if not case.request.get("tools")]
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class City(BaseModel):
    name: str
    people: int


client = function_fixture(openai_client)


def arguments(case: Case) -> dict[str, Any]:
    """A case's request as arguments of the client, which does not know what
    only Open Responses has."""
    beyond = ("presence_penalty", "frequency_penalty")
    known = {name: value for name, value in case.request.items() if name not in beyond}
    return known | {
        "extra_body": {name: case.request[name] for name in beyond if name in case.request}
    }


def say_single(upstream: FaultUpstream, case: Case) -> None:
    status, document = case.single()
    upstream.script(case.upstream_path, [Json(document, status)])


def say_stream(upstream: FaultUpstream, case: Case) -> None:
    upstream.script(case.upstream_path, [Head(200, NDJSON), Chunk(case.lines)])


each = pytest.mark.parametrize("case", COMPLETED, ids=lambda case: case.name)


@each
def test_create(case: Case, client: openai.OpenAI, upstream: FaultUpstream) -> None:
    say_single(upstream, case)
    answer = client.responses.create(**arguments(case))
    expected = texts(case.expected_single)
    assert answer.status == "completed"
    assert answer.output_text == expected["content"]
    assert [
        (item.name, item.arguments) for item in answer.output if item.type == "function_call"
    ] == expected["calls"]
    assert answer.usage.total_tokens == case.expected_single["usage"]["total_tokens"]


@each
def test_create_streamed(case: Case, client: openai.OpenAI, upstream: FaultUpstream) -> None:
    say_stream(upstream, case)
    got = list(client.responses.create(**arguments(case), stream=True))
    assert (got[0].type, got[-1].type) == ("response.created", "response.completed")
    expected = texts(case.expected_single)
    assert (
        "".join(one.delta for one in got if one.type == "response.output_text.delta")
        == expected["content"]
    )
    thoughts = "".join(one.delta for one in got if one.type == "response.reasoning_text.delta")
    assert thoughts == expected["thinking"]
    assert got[-1].response.output_text == expected["content"]


@pytest.mark.parametrize("case", STREAMABLE, ids=lambda case: case.name)
def test_stream_helper_puts_the_same_answer_together(
    case: Case, client: openai.OpenAI, upstream: FaultUpstream
) -> None:
    say_stream(upstream, case)
    with client.responses.stream(**arguments(case)) as stream:
        snapshots = [
            event.snapshot for event in stream if event.type == "response.output_text.delta"
        ]
        final = stream.get_final_response()
    expected = texts(case.expected_single)
    assert final.output_text == expected["content"]
    assert snapshots == [] or snapshots[-1] == expected["content"]


def test_parse(client: openai.OpenAI, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Json(native_chat.done('{"name":"Paris","people":2}'))])
    answer = client.responses.parse(model="m", input="Hi", text_format=City)
    assert answer.output_parsed == City(name="Paris", people=2)
    assert forwarded(upstream)[-1].json()["format"]["properties"].keys() == {"name", "people"}


def test_stream_helper_parses(client: openai.OpenAI, upstream: FaultUpstream) -> None:
    lines = [
        native_chat.piece('{"name":"Paris",'),
        native_chat.done('"people":2}'),
    ]
    upstream.script("/api/chat", [Lines(lines)])
    with client.responses.stream(model="m", input="Hi", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(name="Paris", people=2)


def test_tools_there_and_back_with_their_thinking(
    client: openai.OpenAI, upstream: FaultUpstream
) -> None:
    calls = [{"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]
    upstream.script(
        "/api/chat", [Json(native_chat.done(thinking="I need the tool.", tool_calls=calls))]
    )
    asked: Any = {
        "model": "m",
        "tools": [WEATHER],
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    history: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = client.responses.create(input=history, **asked)
    history += first.output
    history.append(
        {
            "type": "function_call_output",
            "call_id": first.output[-1].call_id,
            "output": "18 degrees",
        }
    )
    client.responses.create(input=history, **asked)
    sent = forwarded(upstream)[-1].json()["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["thinking"] == "I need the tool."
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert (sent[2]["tool_name"], sent[2]["tool_call_id"]) == ("get_weather", "call_1")


def test_stream_helper_parses_arguments(client: openai.OpenAI, upstream: FaultUpstream) -> None:
    calls = [{"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]
    upstream.script("/api/chat", [Lines([native_chat.done("One moment.", tool_calls=calls)])])
    with client.responses.stream(model="m", input="Weather?", tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    text, call = final.output
    assert (text.type, call.type) == ("message", "function_call")
    assert getattr(call, "parsed_arguments", None) == {"city": "Paris"}


def test_G27_limit_that_was_hit_is_told_to_who_iterates(
    client: openai.OpenAI, upstream: FaultUpstream
) -> None:
    """The `.stream()` helper raises on it with OpenAI itself."""
    say_stream(upstream, CASES["length"])
    got = list(client.responses.create(**CASES["length"].request, stream=True))
    assert (got[-1].type, got[-1].response.status) == ("response.incomplete", "incomplete")
    assert got[-1].response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("name", ["error-in-stream", "cut"])
def test_failure_in_a_stream_is_told_to_who_iterates(
    name: str, client: openai.OpenAI, upstream: FaultUpstream
) -> None:
    """G02, G04"""
    say_stream(upstream, CASES[name])
    last = list(client.responses.create(model="m", input="Hi", stream=True))[-1]
    assert (last.type, last.response.status, last.response.error.code) == (
        "response.failed",
        "failed",
        "server_error",
    )
    assert last.response.error.message


def test_failure_in_a_stream_stops_the_helper(
    client: openai.OpenAI, upstream: FaultUpstream
) -> None:
    say_stream(upstream, CASES["cut"])
    with client.responses.stream(model="m", input="Hi") as stream, pytest.raises(RuntimeError):
        stream.get_final_response()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_class_of_an_error_follows_its_status(
    status: int,
    kind: type[openai.APIStatusError],
    stream: bool,
    client: openai.OpenAI,
    upstream: FaultUpstream,
) -> None:
    upstream.script("/api/chat", [Json({"error": "what Ollama said"}, status)])
    with pytest.raises(kind) as caught:
        client.responses.create(model="m", input="Hi", stream=stream)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"] == "what Ollama said"


def test_G27_previous_answer_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="send the whole history") as caught:
        client.responses.create(model="m", input="Hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize("call", ["retrieve", "delete", "cancel"])
def test_stored_answers_are_not_found(call: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="stores no responses"):
        getattr(client.responses, call)("resp_1")


def test_demo_answers(demo_gateway: LocalGateway) -> None:
    with openai_client(demo_gateway) as client:
        single = client.responses.create(model="demo", input="Hello!").output_text
        with client.responses.stream(model="demo", input="Hello!") as stream:
            assert stream.get_final_response().output_text == single
        called = client.responses.create(
            model="demo", input="What is the weather in Paris?", tools=[WEATHER]
        )
        assert json.loads(getattr(called.output[-1], "arguments", "null")) is not None
    assert "demo" in single.lower()
