"""What an answer of OpenAI's Responses says."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Spoken

#: Events that end a response; their word for how is that of the response in them.
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_THINKING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


def read(document: dict[str, Any], spoken: Spoken) -> None:
    """A whole response, or an event of one; see spoken.Reader."""
    kind = document.get("type")
    if kind == "response.output_text.delta":
        spoken.text(document["delta"])
    elif kind in _THINKING:
        spoken.think(document["delta"])
    elif kind == "response.output_item.done":
        _read_call(document["item"], spoken)
    elif kind in _ENDS:
        spoken.finish(document["response"].get("status"))
        spoken.fail(document["response"].get("error"))
    elif kind == "error":
        spoken.fail(document)
    elif document.get("object") == "response":
        for item in document["output"]:
            _read_call(item, spoken)
            for part in item.get("content") or ():
                spoken.text(part.get("text"))
            for part in item.get("summary") or ():
                spoken.think(part.get("text"))
        spoken.finish(document.get("status"))


def _read_call(item: dict[str, Any], spoken: Spoken) -> None:
    if item["type"] == "function_call":
        spoken.call(None, name=item["name"], arguments=item["arguments"])
