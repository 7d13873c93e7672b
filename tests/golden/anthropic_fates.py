"""Every field of Anthropic's messages, what has to become of it, and how one
sees that it counted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from ollama_proxy.dialects.schema_fields import CARRIED, MAPPED, REFUSED
from tests.golden.fates import Asked, Document, Fate, asking, option, sent

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
USER: list[Document] = [{"role": "user", "content": "Hi"}]
SMALLEST: Document = {"model": "m", "max_tokens": 9, "messages": USER}
SCHEMA: Document = {
    "type": "object",
    "properties": {"z": {"type": "string"}, "a": {"$ref": "#/$defs/A"}},
}
TOOL: Document = {"name": "f", "description": "d", "input_schema": SCHEMA}
SENT_TOOL: Document = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": SCHEMA},
}
FORMAT: Document = {"type": "json_schema", "schema": SCHEMA}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


ask = asking({MESSAGES: SMALLEST})


def assert_refused(asked: Asked, name: str) -> str:
    """A 400 that names the part, and nothing was sent on."""
    assert (asked.answer.status, asked.sent) == (400, {}), asked.answer.text
    error = asked.answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(name), error
    return str(error["message"])


def text(value: Any) -> Document:
    return {"type": "text", "text": value}


def image(source: Any) -> Document:
    return {"type": "image", "source": source}


def document(source: Any, **beside: Any) -> Document:
    return {"type": "document", "source": source, **beside}


def base64_image(data: Any = PNG) -> Document:
    return image({"type": "base64", "media_type": "image/png", "data": data})


def streams(asked: Asked) -> bool:
    return asked.sent["stream"] is True and asked.answer.body.endswith(
        b'data: {"type":"message_stop"}\n\n'
    )


def is_told(role: str, content: str) -> Callable[[Asked], bool]:
    return lambda asked: {"role": role, "content": content} in asked.sent["messages"]


FATES: dict[str, Fate] = {
    "model": Fate(MAPPED, "other:tag", sent("model", "other:tag")),
    "max_tokens": Fate(MAPPED, 5.0, option("num_predict", 5)),
    "messages": Fate(MAPPED, [{"role": "user", "content": "Yo"}], is_told("user", "Yo")),
    "system": Fate(MAPPED, "Be brief.", is_told("system", "Be brief.")),
    "stream": Fate(MAPPED, True, streams),
    "temperature": Fate(MAPPED, 0.25, option("temperature", 0.25)),
    "top_p": Fate(MAPPED, 0.75, option("top_p", 0.75)),
    "top_k": Fate(MAPPED, 40, option("top_k", 40)),
    "stop_sequences": Fate(MAPPED, ["a", "b"], option("stop", ["a", "b"])),
    "tools": Fate(MAPPED, [TOOL], sent("tools", [SENT_TOOL])),
    "tool_choice": Fate(
        MAPPED, {"type": "none"}, lambda asked: "tools" not in asked.sent, {"tools": [TOOL]}
    ),
    "thinking": Fate(MAPPED, {"type": "enabled", "budget_tokens": 2000}, sent("think", True)),
    "output_config": Fate(MAPPED, {"format": FORMAT}, sent("format", SCHEMA)),
    "output_format": Fate(MAPPED, FORMAT, sent("format", SCHEMA)),
    # Its place is the access log, where a test of its own looks for it.
    "metadata": Fate(MAPPED, {"user_id": "u"}, lambda asked: asked.answer.status == 200),
    "mcp_servers": Fate(REFUSED, [{"type": "url", "name": "x", "url": "https://mcp.example.org"}]),
    "thread": Fate(REFUSED, {"type": "create"}),
    "billing_policy": Fate(CARRIED, {"type": "any"}),
    "cache_control": Fate(CARRIED, {"type": "ephemeral"}),
    "compaction": Fate(CARRIED, {"type": "auto"}),
    "container": Fate(CARRIED, "container_1"),
    "context_management": Fate(CARRIED, {"edits": [{"type": "clear_tool_uses_20250919"}]}),
    "diagnostics": Fate(CARRIED, {"previous_message_id": "msg_1"}),
    "fallback_credit_token": Fate(CARRIED, "token"),
    "fallbacks": Fate(CARRIED, [{"model": "other"}]),
    "inference_geo": Fate(CARRIED, "eu"),
    "service_tier": Fate(CARRIED, "priority"),
    "speed": Fate(CARRIED, "fast"),
    "user_profile_id": Fate(CARRIED, "profile"),
    "workspace_id": Fate(CARRIED, "workspace"),
}

#: Fields that are no longer parameters of the official client, and that older ones
#: and other clients send.
OLDER = {"temperature", "top_p", "top_k", "output_format"}
