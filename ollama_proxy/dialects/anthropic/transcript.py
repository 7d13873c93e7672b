"""Read the text of answers of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Transcript


def read(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a whole message, or an event of one."""
    match document.get("type"):
        case "message":
            for number, block in enumerate(document["content"]):
                _read_block(number, block, transcript)
            transcript.finish(document.get("stop_reason"))
        case "content_block_start":
            _read_block(document["index"], document["content_block"], transcript)
        case "content_block_delta":
            delta = document["delta"]
            transcript.think(delta.get("thinking"))
            transcript.text(delta.get("text"))
            if "partial_json" in delta:
                transcript.call(document["index"], arguments=delta["partial_json"])
        case "message_delta":
            transcript.finish(document["delta"].get("stop_reason"))


def _read_block(number: int, block: dict[str, Any], transcript: Transcript) -> None:
    if block["type"] == "tool_use":
        transcript.call(number, name=block["name"], arguments=block.get("input"))
    transcript.think(block.get("thinking"))
    transcript.text(block.get("text"))
