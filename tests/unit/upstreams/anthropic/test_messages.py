"""Hub messages as turns of the Messages API."""

from __future__ import annotations

from base64 import b64encode

import pytest

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Message, ToolCall
from ollama_proxy.upstreams.anthropic.messages import BEGINNING, Thoughts, encode_messages

PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
TEXT = {"type": "text", "text": "hi"}


def encode(*messages: Message) -> tuple[str, list[dict[str, object]]]:
    return encode_messages(messages, Thoughts())


def test_system_messages_go_to_the_front() -> None:
    system, turns = encode(Message("system", "a"), Message("user", "hi"), Message("system", "b"))
    assert (system, turns) == ("a\n\nb", [{"role": "user", "content": [TEXT]}])


def test_one_role_in_a_row_is_one_turn() -> None:
    _, turns = encode(
        Message("user", "hi"),
        Message("user", "hi"),
        Message("assistant", "ok"),
        Message("user", "hi"),
    )
    assert [(turn["role"], len(turn["content"])) for turn in turns] == [
        ("user", 2),
        ("assistant", 1),
        ("user", 1),
    ]  # type: ignore[arg-type]


def test_results_come_first_and_find_their_call() -> None:
    called = Message("assistant", "", tool_calls=[ToolCall("a b", "f", {}), ToolCall("", "g", {})])
    _, turns = encode(
        Message("user", "hi"), called, Message("user", "and?"), Message("tool", "2", tool_name="g"),
        Message("tool", "1", tool_call_id="a b"),
    )  # fmt: skip
    first, second = turns[1]["content"]  # type: ignore[misc]
    results = turns[2]["content"]
    assert [block["type"] for block in results] == ["tool_result", "tool_result", "text"]  # type: ignore[attr-defined]
    assert [block["tool_use_id"] for block in results[:2]] == [second["id"], first["id"]]  # type: ignore[index]


def test_a_result_without_its_call_is_said_as_text() -> None:
    _, turns = encode(Message("tool", "42", tool_name="f"))
    assert turns[0]["content"] == [{"type": "text", "text": "f: 42"}]


def test_a_conversation_that_the_model_begins() -> None:
    _, turns = encode(Message("assistant", "Hello. "))
    assert turns[0]["content"] == [{"type": "text", "text": BEGINNING}]
    assert turns[1]["content"] == [{"type": "text", "text": "Hello."}]


def test_images_come_first_with_their_type() -> None:
    _, [turn] = encode(Message("user", "hi", attachments=[PNG]))
    image, text = turn["content"]  # type: ignore[misc]
    assert (image["source"]["media_type"], text) == ("image/png", TEXT)


@pytest.mark.parametrize(
    "message", [Message("user", "", attachments=["AAAA"]), Message("user", " ")]
)
def test_what_can_not_be_said_is_refused(message: Message) -> None:
    with pytest.raises(BadRequest) as raised:
        encode(message)
    assert raised.value.param == "messages"


def test_a_system_prompt_alone_is_what_the_user_says() -> None:
    assert encode(Message("system", "hi")) == ("", [{"role": "user", "content": [TEXT]}])
