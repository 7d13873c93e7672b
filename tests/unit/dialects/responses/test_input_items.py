"""The items of a response's input as hub messages: many items of one turn are one message."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ollama_proxy.dialects.responses.input_items import load_input
from ollama_proxy.dialects.responses.output_items import seal
from ollama_proxy.dialects.responses.tools import Toolbox
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Message, ToolCall
from tests.rig.tables import each_row

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
SAID = {"role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


def test_a_text_is_a_message_of_the_user() -> None:
    assert load_input("hi", Toolbox()) == [Message("user", "hi")]


def test_one_turn_is_one_message() -> None:
    turn, result = load_input([thought("hm"), SAID, CALL, RESULT], Toolbox())
    assert (turn.content, turn.thinking, turn.tool_calls) == (
        "Let me look.",
        "hm",
        [ToolCall("c1", "f", {})],
    )
    assert (result.role, result.content, result.tool_name, result.tool_call_id) == (
        "tool",
        "42",
        "f",
        "c1",
    )


def test_messages_behind_each_other_are_messages_of_their_own() -> None:
    assert [message.content for message in load_input([SAID, SAID], Toolbox())] == [
        "Let me look."
    ] * 2


def test_thinking_belongs_to_what_follows_or_to_nothing() -> None:
    first, second = load_input([thought("hm"), {"role": "user", "content": "hi"}, SAID], Toolbox())
    assert (first.thinking, second.thinking) == (None, None)


def test_sealed_thinking_is_opened_and_that_of_others_is_dropped() -> None:
    [ours] = load_input([{"type": "reasoning", "encrypted_content": seal("hm")}, SAID], Toolbox())
    [theirs] = load_input([{"type": "reasoning", "encrypted_content": "gAAAA"}, SAID], Toolbox())
    assert (ours.thinking, theirs.thinking) == ("hm", None)


def test_a_text_file_is_read() -> None:
    data = "data:text/plain;base64," + base64.b64encode("ü".encode()).decode()
    part = {"type": "input_file", "filename": "a.txt", "file_data": data}
    assert load_input([{"role": "user", "content": [part]}], Toolbox()) == [
        Message("user", "a.txt\nü", attachments=[])
    ]


@each_row(
    ("value", "param"),
    [
        ([], "input"),
        (None, "input"),
        (5, "input"),
        (["hi"], "input[0]"),
        ([{"type": "computer_call"}], "input[0]"),
        ([{"role": "wizard", "content": "x"}], "input[0].role"),
        (
            [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}],
            "input[0].content[0].file_id",
        ),
        (
            [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}],
            "input[0].content[0].file_url",
        ),
        ([{"type": "function_call", "call_id": "c"}], "input[0].name"),
        ([{"type": "web_search_call"}], "input"),
    ],
)
def test_what_is_wrong_is_named(value: Any, param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_input(value, Toolbox())
    assert raised.value.param == param
