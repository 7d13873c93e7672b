"""Read the text of answers of Ollama's API."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Transcript


def read(document: dict[str, Any], transcript: Transcript) -> None:
    """Read one object of `/api/chat` or `/api/generate`."""
    message = document.get("message") or {}
    transcript.think(message.get("thinking") or document.get("thinking"))
    transcript.text(message.get("content") or document.get("response"))
    for call in message.get("tool_calls") or ():
        transcript.call(None, name=call["function"]["name"], arguments=call["function"].get("arguments"))
    transcript.finish(document.get("done_reason"))
