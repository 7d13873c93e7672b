"""What an answer of Anthropic's messages says."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Spoken


def read(document: dict[str, Any], spoken: Spoken) -> None:
    """A whole message, or an event of one; see spoken.Reader."""
    match document.get("type"):
        case "message":
            for number, block in enumerate(document["content"]):
                _read_block(number, block, spoken)
            spoken.finish(document.get("stop_reason"))
        case "content_block_start":
            _read_block(document["index"], document["content_block"], spoken)
        case "content_block_delta":
            delta = document["delta"]
            spoken.think(delta.get("thinking"))
            spoken.text(delta.get("text"))
            if "partial_json" in delta:
                spoken.call(document["index"], arguments=delta["partial_json"])
        case "message_delta":
            spoken.finish(document["delta"].get("stop_reason"))


def _read_block(number: int, block: dict[str, Any], spoken: Spoken) -> None:
    if block["type"] == "tool_use":
        spoken.call(number, name=block["name"], arguments=block.get("input"))
    spoken.think(block.get("thinking"))
    spoken.text(block.get("text"))
