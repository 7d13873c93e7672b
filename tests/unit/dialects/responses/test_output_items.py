"""The items of a response's output."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.dialects.responses.output_items import (
    PLAIN,
    ResponseShape,
    render_output,
    render_usage,
    seal,
    text_part,
    unseal,
)
from ollama_proxy.hub import Answer, Done, ToolCall
from tests.rig.tables import each_row

CALL = ToolCall("c1", "f", {"z": 1, "a": 2})


def test_items_have_the_order_thinking_text_calls() -> None:
    items = render_output(Answer("Hello", "hm", [CALL], [], Done("stop")), PLAIN)
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call"]
    assert items[1]["content"][0]["text"] == "Hello"
    assert json.loads(items[2]["arguments"]) == {"z": 1, "a": 2}
    assert list(json.loads(items[2]["arguments"])) == ["z", "a"]
    assert len({item["id"] for item in items}) == 3


def test_thinking_is_sealed_only_if_asked() -> None:
    answer = Answer("", "hm", [], [], Done("stop"))
    [plain], [sealed] = (
        render_output(answer, PLAIN),
        render_output(answer, ResponseShape(sealed=True)),
    )
    assert "encrypted_content" not in plain
    assert unseal(sealed["encrypted_content"]) == "hm"


def test_an_empty_answer_is_an_empty_message() -> None:
    [item] = render_output(Answer("", "", [], [], Done("stop")), PLAIN)
    assert (item["type"], item["content"][0]["text"]) == ("message", "")


@pytest.mark.parametrize(
    ("content", "thinking", "calls", "statuses"),
    [
        ("He", "", [], ["incomplete"]),
        ("He", "hm", [], ["completed", "incomplete"]),
        ("", "hm", [], ["incomplete"]),
        ("He", "", [CALL], ["completed", "completed"]),
    ],
)
def test_what_the_limit_cut_is_incomplete(
    content: str, thinking: str, calls: list[ToolCall], statuses: list[str]
) -> None:
    items = render_output(Answer(content, thinking, calls, [], Done("length")), PLAIN)
    assert [item["status"] for item in items] == statuses


def test_log_probabilities_always_have_their_bytes() -> None:
    logprobs = [{"token": "ü", "logprob": -0.5, "top_logprobs": [{"token": "u", "bytes": [117]}]}]
    [entry] = text_part("ü", logprobs)["logprobs"]
    assert (entry["bytes"], entry["top_logprobs"][0]) == (
        [195, 188],
        {"token": "u", "logprob": 0.0, "bytes": [117]},
    )


def test_usage_adds_up() -> None:
    usage = render_usage(Done("stop", 7, 3))
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)
    assert render_usage()["total_tokens"] == 0


@each_row("text", ["", "hm", "深く考える", "a\n\nb", "x" * 10_000, "~~~???>>>"])
def test_what_is_sealed_can_be_read_again(text: str) -> None:
    assert unseal(seal(text)) == text


def test_sealed_text_is_one_word_that_does_not_show_it() -> None:
    blob = seal("I need the tool.")
    assert blob.startswith("gw1.")
    assert "tool" not in blob
    assert not set(blob) & set(" \n/+")


@each_row(
    "blob", ["", "gAAAAABfaKe", "gw2.aG0=", "gw1.!", "gw1.aG0", "gw1./w==", "gw1._w==", "gw1.é"]
)
def test_blob_of_somebody_else_is_nothing(blob: str) -> None:
    assert unseal(blob) is None
