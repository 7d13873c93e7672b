"""The estimate of tokens: four bytes each, and a fixed price for a picture."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.anthropic.token_estimate import IMAGE_TOKENS, estimate_tokens
from ollama_proxy.hub import ChatRequest, Document, ImageUrl, Message, Tool, ToolCall

PLAIN = Message("user", "x" * 40)


@pytest.mark.parametrize(
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
        ([Message("user", "x" * 8, images=["AAAA" * 100_000])], 2 + IMAGE_TOKENS),
        ([Message("user", "x" * 8, images=[Document("A" * 2000, "doc.pdf", 0)])], 2 + 100),
        ([Message("user", "x" * 8, images=[Document("A" * 10_000_000, "", 0)])], 2 + 50_000),
        ([Message("user", "", images=[ImageUrl("https://example.org/a.png", "x"), "AAAA"])], 2 * IMAGE_TOKENS),
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
    assert estimate_tokens(ChatRequest(model="m", messages=[PLAIN], tools=[Tool("ff", None, None)])) == 11
