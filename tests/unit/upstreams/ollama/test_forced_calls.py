"""Demanded calls: the schema for them, the request, and what is made of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ollama_proxy.errors import UpstreamRefused
from ollama_proxy.hub import (
    Approximated,
    ChatRequest,
    Content,
    Done,
    Event,
    Message,
    Thinking,
    Tool,
    ToolCall,
    Truncated,
)
from ollama_proxy.upstreams.ollama.forced_calls import (
    ForcedCallEvents,
    encode_forced_call,
    find_call_schema,
)
from tests.rig.tables import each_row

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
DONE = Done("stop", 5, 3)


def asked(*parameters: Any, choice: Any = "required", **fields: Any) -> ChatRequest:
    """A chat with tools of these parameters, named by letters."""
    tools = [Tool(name, None, schema) for name, schema in zip("fgh", parameters, strict=False)]
    return ChatRequest(
        model="m", messages=[Message("user", "Hi")], tools=tools, tool_choice=choice, **fields
    )


@each_row(
    ("request_", "schema"),
    [
        (asked(CITY), CITY),
        (asked(CITY, None, choice={"name": "g"}), NOTHING),
        (asked({}), NOTHING),
        (asked({"anyOf": [CITY]}), {"anyOf": [CITY]}),
        (asked({"type": "string"}), None),
        (asked(CITY, {"type": ["object", "null"]}), None),
        (asked(CITY, choice="auto"), None),
        (asked(CITY, choice="none"), None),
        (asked(CITY, choice=None), None),
    ],
)
def test_schema_is_that_of_the_parameters(request_: ChatRequest, schema: Any) -> None:
    assert find_call_schema(request_) == schema


def test_references_of_several_tools_lead_to_their_own_definitions() -> None:
    trees = [
        {"$defs": {"T": {"title": name}}, "properties": {"t": {"$ref": "#/$defs/T"}}}
        for name in "fg"
    ]
    trees[0]["description"] = 'written "$ref":"#/$defs/T"'
    schema = find_call_schema(asked(*trees))
    assert schema is not None
    for index, call in enumerate(schema["anyOf"]):
        assert call["properties"]["arguments"] == {"$ref": f"#/$defs/{index}"}
        moved = schema["$defs"][str(index)]
        assert moved["properties"]["t"] == {"$ref": f"#/$defs/{index}/$defs/T"}
        assert moved["$defs"]["T"] == {"title": "fg"[index]}
    assert schema["$defs"]["0"]["description"] == trees[0]["description"]


def test_request_has_only_what_the_call_needs() -> None:
    request = asked(
        CITY, think="high", logprobs=True, options={"stop": ["\n"], "seed": 1}, format="json"
    )
    body = encode_forced_call(request, CITY)
    assert (body["format"], body["think"], body["options"]) == (CITY, False, {"seed": 1})
    assert "logprobs" not in body
    assert body["messages"][0]["content"] == (
        'Hi\n\nYou must call the tool "f": answer with its arguments as one JSON object.'
    )


class Answers:
    """Plays one list of batches per request, or refuses it."""

    def __init__(self, *answers: Sequence[Sequence[Event]] | UpstreamRefused) -> None:
        self._answers = [*answers]
        self.asked: list[Any] = []

    def __call__(self, schema: Any) -> Answers:
        self.asked.append(schema)
        if isinstance(self._answers[0], UpstreamRefused):
            raise self._answers.pop(0)  # type: ignore[misc]
        return self

    def __iter__(self) -> Iterator[Sequence[Event]]:
        yield from self._answers.pop(0)  # type: ignore[misc]

    def close(self) -> None:
        """Nothing is open."""


def read(answers: Answers, *tools: Any, heartbeat_s: float | None = None) -> list[Sequence[Event]]:
    return [*ForcedCallEvents(asked(*tools), CITY, answers, heartbeat_s)]


OTHER = ToolCall("c", "f", {})


@pytest.mark.parametrize(
    ("tools", "batches"),
    [
        ([CITY], [[Content('{"city": ')], [Content('"X"}\n')], [DONE]]),
        ([CITY], [[Content(" ")], [Content('\n{"city":"X"}'), DONE]]),
        ([CITY, CITY], [[Content('{"name": "f", "arguments": {"city": "X"}}'), DONE]]),
        (
            [CITY],
            [
                [
                    Content("I call it."),
                    ToolCall("c", "h", {}),
                    ToolCall("c", "f", {"city": "X"}),
                    DONE,
                ]
            ],
        ),
    ],
    ids=["pieces", "blanks", "several", "a call of its own"],
)
def test_answer_becomes_a_call(tools: Any, batches: Any) -> None:
    [[*_, call, done]] = read(Answers(batches), *tools)
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments, done) == ("f", {"city": "X"}, DONE)


@each_row(
    ("tools", "text"),
    [
        ([CITY], "I can't."),
        ([CITY], "{"),
        ([CITY], ""),
        ([CITY, CITY], "[]"),
        ([CITY, CITY], '{"name": "h", "arguments": {}}'),
        ([CITY, CITY], '{"name": "f", "arguments": []}'),
        ([CITY], '{"city":' * 300 + "1" + "}" * 300),
    ],
)
def test_any_other_answer_is_asked_for_again(tools: Any, text: str) -> None:
    answers = Answers([[Content(text), DONE]], [[Truncated(), OTHER], [DONE]])
    assert read(answers, *tools) == [[Approximated("tool_choice"), Truncated(), OTHER], [DONE]]
    assert answers.asked == [CITY, None]


def test_what_came_beside_the_call_is_kept_and_heartbeats_go_on() -> None:
    batches: list[Sequence[Event]] = [[Truncated(), Thinking("Hm")], [], [Content("{}")], [DONE]]
    assert [len(batch) for batch in read(Answers(batches), CITY, heartbeat_s=60)] == [0, 4]
    first, *_, (report, thought, call, end) = read(Answers(batches), CITY, heartbeat_s=0)
    assert (first, report, thought, end) == ((), Truncated(), Thinking("Hm"), DONE)
    assert isinstance(call, ToolCall)


def test_only_a_refusal_of_the_schema_is_a_reason_to_ask_again() -> None:
    answers = Answers(UpstreamRefused(500, "failed to parse grammar"), [[OTHER, DONE]])
    assert read(answers, CITY) == [[Approximated("tool_choice"), OTHER, DONE]]
    with pytest.raises(UpstreamRefused, match="no such model"):
        read(Answers(UpstreamRefused(404, "no such model")), CITY)
