"""Anthropic's messages as hub messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ollama_proxy.dialects.anthropic.messages import load_messages, load_system
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Document, ImageUrl, Message, ToolCall
from tests.rig.tables import each_row

DATA = base64.b64encode(b"picture").decode()


def user(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": list(blocks)}]


def test_blocks_of_one_message_stay_one_message() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://pictures.example/a.png"}}
    [message] = load_messages(
        user({"type": "text", "text": "a"}, image, linked, {"type": "text", "text": "b"})
    )
    url = ImageUrl("https://pictures.example/a.png", "messages[0].content[2].source.url")
    assert message == Message("user", "a\nb", attachments=[DATA, url], tool_calls=[])


def test_results_come_before_what_the_user_says_and_name_their_tool() -> None:
    called = {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}],
    }
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "42", "is_error": True}
    _, second, third = load_messages([called, *user({"type": "text", "text": "and?"}, result)])
    assert second == Message("tool", "Error: 42", attachments=[], tool_name="f", tool_call_id="t1")
    assert (third.role, third.content) == ("user", "and?")


def test_a_message_of_results_alone_adds_no_empty_message() -> None:
    roles = [
        message.role for message in load_messages(user({"type": "tool_result", "tool_use_id": "x"}))
    ]
    assert roles == ["tool"]


def test_thinking_and_calls_of_the_assistant() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "?"},
        {"type": "text", "text": "ok"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    ]
    [message] = load_messages([{"role": "assistant", "content": blocks}])
    assert (message.thinking, message.content, message.tool_calls) == (
        "hm",
        "ok",
        [ToolCall("t1", "f", {})],
    )


def test_document_is_read_as_text_with_its_title_first() -> None:
    source = {
        "type": "base64",
        "media_type": "text/plain",
        "data": base64.b64encode("ü".encode()).decode(),
    }
    [message] = load_messages(user({"type": "document", "title": "Letter", "source": source}))
    assert message.content == "Title: Letter\nü"


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


def test_a_pdf_keeps_its_place_and_its_title() -> None:
    block = {"type": "document", "title": "a\n letter", "context": "From a drawer", "source": PDF}
    [message] = load_messages(
        user({"type": "text", "text": "above"}, block, {"type": "text", "text": "below"})
    )
    assert message.content == "above\nContext: From a drawer\nbelow"
    assert message.attachments == [
        Document("JVBERi0=", "a letter", len("above\nContext: From a drawer"))
    ]


def test_a_pdf_inside_a_result_belongs_to_it() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "document", "source": PDF}],
    }
    [message] = load_messages(user(result))
    assert (message.role, message.content, message.attachments) == (
        "tool",
        "",
        [Document("JVBERi0=", "", 0)],
    )


@each_row(
    ("block", "where"),
    [
        ({"type": "sound"}, "messages[0].content[0].type"),
        ({"type": "text", "text": 1}, "messages[0].content[0].text"),
        ({"type": "image", "source": {"type": "file"}}, "messages[0].content[0].source.type"),
        (
            {"type": "image", "source": {"type": "base64", "data": "*"}},
            "messages[0].content[0].source.data",
        ),
        (
            {"type": "image", "source": {"type": "base64", "data": ""}},
            "messages[0].content[0].source.data",
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}},
            "messages[0].content[0].source.data",
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "image/png"}},
            "messages[0].content[0].source",
        ),
        ({"type": "tool_use", "id": "t", "name": "f"}, "messages[0].content[0].type"),
    ],
)
def test_a_wrong_block_is_named(block: Any, where: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_messages(user(block))
    assert raised.value.param == where


def test_a_wrong_role_is_named() -> None:
    with pytest.raises(BadRequest, match=r"messages\[0\]\.role"):
        load_messages([{"role": "wizard", "content": "hi"}])


def test_system_prompt_is_one_message_or_none() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert load_system(parts) == [Message("system", "a\n\nb")]
    assert load_system("") == load_system(None) == []
