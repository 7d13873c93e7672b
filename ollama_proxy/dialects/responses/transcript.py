"""Read the text of answers of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Transcript

#: Events that end a response; its status is in the response that they contain.
_ENDS = ("response.completed", "response.incomplete", "response.failed")


def read(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a whole response, or an event of one."""
    kind = document.get("type")
    if kind == "response.output_text.delta":
        transcript.text(document["delta"])
    elif kind == "response.reasoning_text.delta":
        transcript.think(document["delta"])
    elif kind == "response.output_item.done":
        _read_call(document["item"], transcript)
    elif kind in _ENDS:
        transcript.finish(document["response"].get("status"))
        transcript.record_failure(document["response"].get("error"))
    elif kind == "error":
        transcript.record_failure(document)
    elif document.get("object") == "response":
        for item in document["output"]:
            _read_item(item, transcript)
        transcript.finish(document.get("status"))


def _read_item(item: dict[str, Any], transcript: Transcript) -> None:
    _read_call(item, transcript)
    add = transcript.think if item["type"] == "reasoning" else transcript.text
    for part in item.get("content") or ():
        add(part.get("text"))


def _read_call(item: dict[str, Any], transcript: Transcript) -> None:
    match item["type"]:
        case "function_call":
            transcript.call(None, name=item["name"], arguments=item["arguments"])
        case "custom_tool_call":
            transcript.call(None, name=item["name"], arguments=item["input"])
        case "tool_search_call":
            transcript.call(None, name="tool_search", arguments=item["arguments"])
