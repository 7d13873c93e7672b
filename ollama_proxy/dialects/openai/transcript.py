"""Read the text of answers of OpenAI's chat completions and completions, made by the gateway or an upstream."""

from __future__ import annotations

from typing import Any

from ollama_proxy.telemetry import Transcript


def read(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a whole answer, or a chunk of one."""
    for choice in document.get("choices") or ():
        index = choice.get("index")
        message = choice.get("delta") or choice.get("message") or {}
        # Two names are in use for the same thing, and some send both.
        transcript.think(message.get("reasoning_content") or message.get("reasoning"), index)
        transcript.text(message.get("content") or message.get("refusal") or choice.get("text"), index)
        for call in message.get("tool_calls") or ():
            _read_call(call, transcript, index)
        if function := message.get("function_call"):
            transcript.call("function", index, name=function.get("name"), arguments=function.get("arguments"))
        transcript.finish(choice.get("finish_reason"), index)


def _read_call(call: dict[str, Any], transcript: Transcript, index: object) -> None:
    called = call.get("function") or call.get("custom") or {}
    arguments = called.get("arguments") or called.get("input")
    transcript.call(call.get("index"), index, name=called.get("name"), arguments=arguments)
