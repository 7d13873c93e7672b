"""Anthropic's requests to hub requests: what the operator may still decide, and what has
no place in a request."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.anthropic.load import (
    IMAGE_TOKENS,
    estimate_tokens,
    load_chat,
    shows_thinking,
)
from ollama_proxy.dialects.anthropic.tools import load_tools
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, Document, ImageUrl, Message, Tool, ToolCall
from tests.rig.tables import each_row

USER = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": USER, **fields}


@each_row(
    ("fields", "think", "default"),
    [
        ({}, None, False),
        ({"thinking": {"type": "disabled"}}, False, False),
        ({"thinking": {"type": "adaptive"}}, True, False),
        ({"output_config": {"effort": "low"}}, "low", None),
        ({"output_config": {"effort": "turbo"}}, None, None),
    ],
)
def test_thinking_that_nobody_mentions_is_left_to_the_operator(
    fields: dict[str, Any], think: Any, default: bool | None
) -> None:
    asked = load_chat(chat(**fields))
    assert (asked.think, asked.think_default, asked.lenient_think) == (think, default, True)


@pytest.mark.parametrize(
    ("choice", "parallel"),
    [
        (None, None),
        ({"type": "auto"}, None),
        ({"type": "auto", "disable_parallel_tool_use": True}, False),
    ],
)
def test_one_call_at_a_time(choice: Any, parallel: bool | None) -> None:
    asked = load_chat({"model": "m", "max_tokens": 9, "messages": USER, "tool_choice": choice})
    assert asked.parallel_tool_calls is parallel


def test_only_an_answer_needs_a_limit() -> None:
    asked = {"model": "m", "messages": USER}
    assert load_chat(asked, is_limited=False).options == {}
    with pytest.raises(BadRequest) as refused:
        load_chat(asked)
    assert refused.value.param == "max_tokens"


@each_row(
    ("thinking", "shown"),
    [
        (None, True),
        ({}, True),
        ({"type": "adaptive"}, True),
        ({"type": "adaptive", "display": "summarized"}, True),
        ({"type": "adaptive", "display": None}, True),
        ({"type": "enabled", "display": "omitted"}, False),
    ],
)
def test_thinking_is_shown_unless_it_is_not_wanted(thinking: Any, shown: bool) -> None:
    assert shows_thinking({"thinking": thinking}) is shown


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"z": {"$ref": "#/$defs/Z"}, "a": True},
            "$defs": {"Z": {"oneOf": []}},
        },
        {},
    ],
)
def test_schemas_are_not_touched(schema: dict[str, Any]) -> None:
    """G20"""
    [tool], _ = load_tools([{"name": "f", "input_schema": schema, "strict": True}])
    assert tool.parameters is schema and tool.strict is True


def test_extensions_reach_the_request() -> None:
    asked = load_chat(chat(exclude_reasoning=True, truncate=True, timeout_ms=500, keep_alive="5m"))
    assert (asked.exclude_reasoning, asked.truncate, asked.timeout_ms, asked.keep_alive) == (
        True,
        True,
        500,
        "5m",
    )


def test_user_is_the_clients_own_word() -> None:
    assert load_chat(chat(metadata={"user_id": "u"})).user == "u"
    assert load_chat(chat(metadata={"user_id": None})).user is None


PLAIN = Message("user", "x" * 40)


@each_row(
    ("messages", "tokens"),
    [
        ([Message("user", "")], 1),
        ([Message("user", "Hi")], 1),
        ([PLAIN], 10),
        ([PLAIN, Message("system", "y" * 20)], 15),
        ([Message("user", "世界世界")], 3),
        ([Message("assistant", "x" * 8, thinking="t" * 8)], 4),
        ([Message("assistant", tool_calls=[ToolCall("c", "name", {"a": "x" * 20})])], 8),
        ([Message("tool", "x" * 8, tool_name="name", tool_call_id="c")], 2),
        ([Message("user", "x" * 8, attachments=["AAAA" * 100_000])], 2 + IMAGE_TOKENS),
        ([Message("user", "x" * 8, attachments=[Document("A" * 2000, "doc.pdf", 0)])], 2 + 100),
        ([Message("user", "x" * 8, attachments=[Document("A" * 10_000_000, "", 0)])], 2 + 50_000),
        (
            [Message("user", "", attachments=[ImageUrl("https://example.org/a.png", "x"), "AAAA"])],
            2 * IMAGE_TOKENS,
        ),
    ],
)
def test_everything_that_the_model_reads_counts(messages: list[Message], tokens: int) -> None:
    assert estimate_tokens(ChatRequest(model="m", messages=messages)) == tokens


@pytest.mark.parametrize(("choice", "tokens"), [(None, 20), ("required", 20), ("none", 10)])
def test_tools_count_where_the_model_is_shown_them(choice: str | None, tokens: int) -> None:
    tool = Tool("four", "d" * 14, {"type": "string", "x": 1})
    asked = ChatRequest(model="m", messages=[PLAIN], tools=[tool], tool_choice=choice)
    assert estimate_tokens(asked) == tokens


def test_a_tool_may_have_neither_words_nor_a_schema() -> None:
    assert (
        estimate_tokens(ChatRequest(model="m", messages=[PLAIN], tools=[Tool("ff", None, None)]))
        == 11
    )
