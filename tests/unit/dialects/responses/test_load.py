"""OpenAI's responses to hub requests: what the items of a turn amount to, without more
work than their number."""

from __future__ import annotations

import time
from typing import Any

from ollama_proxy.dialects.responses.load import load_response
from ollama_proxy.hub import ChatRequest, Message, ToolCall

MANY = range(10_000)


def load(**fields: Any) -> ChatRequest:
    return load_response({"model": "m", "input": "Hi"} | fields)[0]


def loaded_quickly(**fields: Any) -> ChatRequest:
    """What is asked; the time of many pieces grows with their number alone."""
    began = time.process_time()
    asked = load(**fields)
    assert time.process_time() - began < 5.0
    return asked


def call(number: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}


def test_many_calls_in_one_turn() -> None:
    [message] = loaded_quickly(input=[call(one) for one in range(50_000)]).messages
    assert [one.id for one in message.tool_calls] == [f"c{one}" for one in range(50_000)]


def test_much_that_is_said_and_thought_behind_a_call() -> None:
    text = "x" * 1000
    items = [call(0), *(item for _ in MANY for item in (thought(text), said(text)))]
    [message] = loaded_quickly(input=items).messages
    assert message.content == message.thinking == "\n".join(text for _ in MANY)


def test_many_allowed_tools() -> None:
    tools = [{"type": "function", "name": f"f{one}"} for one in MANY]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": tools[1:]}
    assert len(loaded_quickly(tools=tools, tool_choice=choice).tools) == len(tools) - 1


def test_a_turn_ends_where_somebody_else_speaks() -> None:
    result = {"type": "function_call_output", "call_id": "c0", "output": "r"}
    items = [
        thought("a"),
        said("1"),
        said("2"),
        thought("b"),
        call(0),
        said("3"),
        result,
        thought("c"),
        said("4"),
    ]
    assert load(input=items).messages == [
        Message("assistant", "1", thinking="a", attachments=[], tool_calls=[]),
        Message(
            "assistant", "2\n3", thinking="b", attachments=[], tool_calls=[ToolCall("c0", "f", {})]
        ),
        Message("tool", "r", attachments=[], tool_name="f", tool_call_id="c0"),
        Message("assistant", "4", thinking="c", attachments=[], tool_calls=[]),
    ]
