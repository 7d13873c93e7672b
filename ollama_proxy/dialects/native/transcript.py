"""What an answer of Ollama's API says."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Spoken


def read(document: dict[str, Any], spoken: Spoken) -> None:
    """One object of `/api/chat` or `/api/generate`; see spoken.Reader."""
    message = document.get("message") or {}
    spoken.think(message.get("thinking") or document.get("thinking"))
    spoken.text(message.get("content") or document.get("response"))
    for call in message.get("tool_calls") or ():
        spoken.call(None, name=call["function"]["name"], arguments=call["function"].get("arguments"))
    spoken.finish(document.get("done_reason"))
