"""What is read from an answer of OpenAI's Responses API for the chat log, streamed or single."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.responses.transcript import read
from tests.unit.dialects.transcripts import assert_everything_is_read, read_all

CALL = {"type": "function_call", "name": "f", "arguments": '{"a":1}'}
WHOLE: list[Any] = [
    {
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
            CALL,
        ],
    }
]
STREAM: list[Any] = [
    {"type": "response.reasoning_text.delta", "delta": "hm"},
    {"type": "response.output_text.delta", "delta": "Hel"},
    {"type": "response.output_text.delta", "delta": "lo"},
    {"type": "response.output_item.done", "item": {"type": "message", "content": []}},
    {"type": "response.output_item.done", "item": CALL},
    {"type": "response.completed", "response": {"status": "completed"}},
]


@pytest.mark.parametrize("documents", [WHOLE, STREAM], ids=["single", "stream"])
def test_everything_is_read(documents: list[Any]) -> None:
    assert_everything_is_read(read, documents, "completed")


def test_error_is_the_text_that_the_client_received() -> None:
    failed = {"status": "failed", "error": {"message": "boom"}}
    assert read_all(read, {"type": "response.failed", "response": failed}).error == "boom"
