"""What a request asks of the model, as fields of the Messages API."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, Message, Tool, ToolCall
from ollama_proxy.upstreams.anthropic.models import UNKNOWN, Traits
from ollama_proxy.upstreams.anthropic.parameters import AS_JSON, DEFAULT_TOKENS, Parameters, encode_parameters
from ollama_proxy.upstreams.anthropic.thoughts import Thoughts

ADAPTIVE = Traits(
    frozenset({"thinking"}),
    64_000,
    lists_thinking=True,
    is_adaptive=True,
    decides_sampling=True,
    can_stop_thinking=False,
    efforts=frozenset({"low", "high"}),
    has_schemas=True,
)
SCHEMA = {"type": "object", "properties": {}}


def encode(traits: Traits = UNKNOWN, **fields: Any) -> Parameters:
    request = ChatRequest(model="m", **{"messages": [Message("user", "hi")], **fields})
    return encode_parameters(request, traits, Thoughts())


def test_the_one_default_is_the_length() -> None:
    assert encode().fields == {"max_tokens": DEFAULT_TOKENS}
    assert encode(ADAPTIVE).fields == {"max_tokens": 64_000}
    assert encode(ADAPTIVE, options={"num_predict": 99_999}).fields["max_tokens"] == 64_000
    assert encode(options={"num_predict": 5}).fields["max_tokens"] == 5


@pytest.mark.parametrize(
    ("choice", "encoded"),
    [("none", {"type": "none"}), ("required", {"type": "any"}), ({"name": "f"}, {"type": "tool", "name": "f"})],
)
def test_tools(choice: Any, encoded: Any) -> None:
    fields = encode(tools=[Tool("f", None, None)], tool_choice=choice).fields
    assert fields["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert fields["tool_choice"] == encoded


def test_one_call_at_a_time() -> None:
    fields = encode(tools=[Tool("f", "d", SCHEMA)], parallel_tool_calls=False).fields
    assert fields["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_history_with_calls_has_their_tools() -> None:
    fields = encode(messages=[Message("assistant", tool_calls=[ToolCall("c", "f", {})])]).fields
    assert ([tool["name"] for tool in fields["tools"]], fields["tool_choice"]) == (["f"], {"type": "none"})


def test_a_budget_for_thinking_comes_on_top_or_is_half_of_the_limit() -> None:
    free, limited = encode(think="low").fields, encode(think="max", options={"num_predict": 4000}).fields
    assert (free["thinking"]["budget_tokens"], free["max_tokens"]) == (2048, DEFAULT_TOKENS + 2048)
    assert (limited["thinking"]["budget_tokens"], limited["max_tokens"]) == (2000, 4000)


def test_a_model_that_decides_by_itself_gets_a_level() -> None:
    fields = encode(ADAPTIVE, think="low").fields
    assert (fields["thinking"]["type"], fields["output_config"]) == ("adaptive", {"effort": "low"})
    assert encode(ADAPTIVE, think="medium").fields["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [Message("assistant", "", tool_calls=[ToolCall("call_1", "f", {})])]},
        {"options": {"num_predict": 1000}},
        {"tools": [Tool("f", None, None)], "tool_choice": "required"},
    ],
)
def test_thinking_without_room_is_left_out_and_listed(fields: dict[str, Any]) -> None:
    parameters = encode(think=True, **fields)
    assert "think" in parameters.unsaid
    assert parameters.fields.get("thinking", {}).get("type") in (None, "disabled")


def test_thinking_of_a_model_that_can_not_is_refused() -> None:
    with pytest.raises(BadRequest, match="does not support thinking"):
        encode(Traits(frozenset({"completion"})), think=True)


def test_sampling() -> None:
    parameters = encode(options={"temperature": 1.8, "top_p": 0.5, "top_k": 4, "stop": ["a", " "]})
    assert {name: parameters.fields.get(name) for name in ("temperature", "top_p", "top_k", "stop_sequences")} == {
        "temperature": 1.0,
        "top_p": None,
        "top_k": 4,
        "stop_sequences": ["a"],
    }
    assert parameters.unsaid == ["top_p", "stop"]
    assert encode(ADAPTIVE, options={"temperature": 0.5}).unsaid == ["temperature"]


def test_form_of_the_answer() -> None:
    assert encode(format="json").instruction == AS_JSON
    told, asked = encode(format=SCHEMA), encode(ADAPTIVE, format=SCHEMA)
    assert ('"properties"' in told.instruction, told.unsaid) == (True, ["format"])
    assert asked.fields["output_config"]["format"]["schema"] == SCHEMA | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("user", "is_sent"), [("u-17", True), ("a@b.example", False), ("+49 30 123456", False), ("x" * 257, False)]
)
def test_the_user_is_named_unless_that_is_personal(user: str, is_sent: bool) -> None:
    parameters = encode(user=user)
    assert ("metadata" in parameters.fields, "user" in parameters.unsaid) == (is_sent, not is_sent)


def test_own_fields_pass() -> None:
    carried = {"service_tier": "auto", "inference_geo": 5, "cache_control": {"type": "ephemeral"}, "x": 1}
    fields = encode(passthrough_fields=carried).fields
    assert fields == {"max_tokens": DEFAULT_TOKENS, "service_tier": "auto", "cache_control": {"type": "ephemeral"}}
