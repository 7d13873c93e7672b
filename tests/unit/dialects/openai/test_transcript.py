"""What is read from an answer of OpenAI's chat completions for the chat log, streamed or single."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.openai.transcript import read
from tests.unit.dialects.transcripts import assert_everything_is_read, read_all

CALL = {"index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}
WHOLE: list[Any] = [
    {
        "choices": [
            {
                "index": 0,
                "message": {"reasoning": "hm", "content": "Hello", "tool_calls": [CALL]},
                "finish_reason": "tool_calls",
            }
        ]
    }
]


def chunk(finish: str | None = None, **delta: Any) -> Any:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


STREAM: list[Any] = [
    chunk(reasoning_content="hm", reasoning="hm"),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": '{"a"'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
    chunk("tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 1}},
]


@pytest.mark.parametrize("documents", [WHOLE, STREAM], ids=["single", "stream"])
def test_everything_is_read(documents: list[Any]) -> None:
    assert_everything_is_read(read, documents, "tool_calls")


def test_function_call_and_several_choices_are_read() -> None:
    older = {"function_call": {"name": "f", "arguments": "{}"}}
    choices = [{"index": 1, "message": older}, {"index": 0, "text": "a completion"}]
    first, second = read_all(read, {"choices": choices}).answers()
    assert (first["text"], second["tool_calls"]) == ("a completion", [{"name": "f", "arguments": {}}])
