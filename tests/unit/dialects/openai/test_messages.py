"""OpenAI's messages as hub messages."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.openai.messages import load_messages
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Message, ToolCall
from tests.rig.tables import each_row

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"z":1,"a":2}'}}


def test_roles() -> None:
    loaded = load_messages(
        [{"role": role, "content": "x"} for role in ("system", "developer", "user", "assistant")]
    )
    assert [message.role for message in loaded] == ["system", "system", "user", "assistant"]


def test_parts_stay_one_message() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    sound = {"type": "input_audio", "input_audio": {"data": "REVG", "format": "wav"}}
    parts = [{"type": "text", "text": "a"}, image, sound, {"type": "text", "text": "b"}]
    assert load_messages([{"role": "user", "content": parts}]) == [
        Message("user", "a\nb", attachments=["QUJD", "REVG"])
    ]


def test_result_finds_the_name_of_its_tool() -> None:
    called, result = load_messages(
        [
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]
    )
    assert called.tool_calls == [ToolCall("c1", "f", {"z": 1, "a": 2})]
    assert list(called.tool_calls[0].arguments) == ["z", "a"]
    assert (result.tool_name, result.tool_call_id) == ("f", "c1")


def test_the_older_form_of_calls_has_ids_that_stay_the_same() -> None:
    history = [
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ]
    first, second = load_messages(history), load_messages(history)
    assert first == second
    assert first[0].tool_calls[0].id == first[1].tool_call_id


def test_both_names_of_thinking() -> None:
    for name in ("reasoning", "reasoning_content"):
        assert (
            load_messages([{"role": "assistant", "content": "a", name: "hm"}])[0].thinking == "hm"
        )


@each_row(
    ("message", "param"),
    [
        ("hi", "messages[0]"),
        ({"role": "wizard"}, "messages[0].role"),
        ({"role": "user", "content": 1}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "video"}]}, "messages[0].content[0].type"),
        (
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": "http://a"}}],
            },
            "messages[0].content[0].input_audio.data",
        ),
        ({"role": "assistant", "tool_calls": "f"}, "messages[0].tool_calls"),
        (
            {"role": "assistant", "tool_calls": [{"function": {}}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"role": "assistant", "reasoning": 1}, "messages[0].reasoning"),
    ],
)
def test_what_is_wrong_is_named(message: Any, param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_messages([message])
    assert raised.value.param == param


def test_no_messages_would_load_the_model() -> None:
    for nothing in ([], None):
        with pytest.raises(BadRequest, match="messages"):
            load_messages(nothing)
