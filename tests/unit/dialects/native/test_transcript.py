"""What is read from an answer of Ollama's API for the chat log, streamed or single."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.native.transcript import read
from tests.unit.dialects.transcripts import assert_everything_is_read

CALL = {"function": {"name": "f", "arguments": {"a": 1}}}
WHOLE: list[Any] = [
    {"message": {"thinking": "hm", "content": "Hello", "tool_calls": [CALL]}, "done": True, "done_reason": "stop"}
]
STREAM: list[Any] = [
    {"message": {"content": "", "thinking": "hm"}, "done": False},
    {"message": {"content": "Hel"}, "done": False},
    {"message": {"content": "lo"}, "done": False},
    {"message": {"content": "", "tool_calls": [CALL]}, "done": False},
    {"message": {"content": ""}, "done": True, "done_reason": "stop"},
]


@pytest.mark.parametrize("documents", [WHOLE, STREAM], ids=["single", "stream"])
def test_everything_is_read(documents: list[Any]) -> None:
    assert_everything_is_read(read, documents, "stop")
