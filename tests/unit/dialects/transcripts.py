"""What every dialect's transcript must hold of the same answer, streamed or single."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ollama_proxy.telemetry import Transcript
from ollama_proxy.telemetry.transcript import Reader


def read_all(read: Reader, *documents: Any) -> Transcript:
    """The transcript of an answer that consists of these documents."""
    transcript = Transcript()
    for document in documents:
        read(document, transcript)
    return transcript


def assert_everything_is_read(read: Reader, documents: Iterable[Any], finish: str) -> None:
    """A thought, "Hello", and one call."""
    call = {"name": "f", "arguments": {"a": 1}}
    expected = [{"text": "Hello", "thinking": "hm", "tool_calls": [call], "finish": finish}]
    assert read_all(read, *documents).answers() == expected
