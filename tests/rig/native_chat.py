"""The lines of an answer of Ollama's chat, as a model server sends them."""

from __future__ import annotations

from typing import Any


def piece(content: str = "", *, model: str = "m", **message: Any) -> dict[str, Any]:
    """A line with a part of the answer; further parts of the message are such as `tool_calls`."""
    return {
        "model": model,
        "message": {"role": "assistant", "content": content, **message},
        "done": False,
    }


def done(content: str = "", *, model: str = "m", **message: Any) -> dict[str, Any]:
    """The last line, or a whole answer."""
    return piece(content, model=model, **message) | {"done": True, "done_reason": "stop"}
