"""Unit tests of the conversions, and what they share."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ollama_proxy.hub import ChatRequest


def finished(steps: Generator[Any, None, ChatRequest]) -> ChatRequest:
    """What a conversion returns, whatever heartbeats it yields before."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ChatRequest = end.value
            return result
