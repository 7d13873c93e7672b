"""Load Anthropic's requests as hub requests, and estimate their tokens.

Absent parameters stay absent, so the model's own defaults apply.
"""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.anthropic.messages import load_messages, load_system
from ollama_proxy.dialects.anthropic.schemas import MessagesSchema
from ollama_proxy.dialects.anthropic.tools import load_tool_choice, load_tools
from ollama_proxy.dialects.schema_fields import (
    as_object,
    as_text,
    check_fields,
    passthrough_fields,
    raise_invalid,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, Document, Json
from ollama_proxy.wire import encode_request

MESSAGES = MessagesSchema()

#: Anthropic's efforts as Ollama's levels; other values have no effect.
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}


def load_chat(data: dict[str, Json], *, is_limited: bool = True) -> ChatRequest:
    """Load the body of POST /v1/messages or, with `is_limited` False, of POST
    /v1/messages/count_tokens, which needs no `max_tokens`. Raises BadRequest
    that names the field."""
    check_fields(MESSAGES, data)
    # In the order and with the texts of Ollama's own implementation.
    if not data.get("model"):
        raise BadRequest("model is required", param="model")
    if is_limited and (data.get("max_tokens") or 0) <= 0:
        raise BadRequest("max_tokens is required and must be positive", param="max_tokens")
    if not data.get("messages"):
        raise BadRequest("messages is required", param="messages")
    user = (data.get("metadata") or {}).get("user_id")
    choice, (tools, hosted) = data.get("tool_choice"), load_tools(data.get("tools") or [])
    is_sequential = isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True
    return ChatRequest(
        model=data["model"],
        messages=load_system(data.get("system")) + load_messages(data["messages"]),
        stream=bool(data.get("stream")),
        tools=tools,
        tool_choice=load_tool_choice(choice, tools),
        parallel_tool_calls=False if is_sequential else None,
        format=load_format(data),
        think=load_think(data),
        # Anthropic's own models don't think by default.
        think_default=None if _effort(data) else False,
        lenient_think=True,
        options=load_options(data),
        user=None if user is None else as_text(user, "metadata.user_id"),
        passthrough_fields=passthrough_fields(MESSAGES, data),
        ignored=hosted,
        **content_parts.load_extensions(data),
    )


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return Ollama's options: the extensions, overridden by Anthropic's own fields."""
    options = content_parts.load_options(data)
    options |= {name: data[name] for name in ("temperature", "top_p") if data.get(name) is not None}
    if data.get("max_tokens") is not None:
        options["num_predict"] = int(data["max_tokens"])
    if data.get("stop_sequences"):
        options["stop"] = data["stop_sequences"]
    return options


def load_format(data: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """Return the JSON Schema of the answer: `output_config.format`, or `output_format`,
    its name in the beta."""
    name, wanted = "output_config.format", (data.get("output_config") or {}).get("format")
    if wanted is None:
        name, wanted = "output_format", data.get("output_format")
    if not wanted:
        return None
    if as_object(wanted, name).get("type") != "json_schema":
        raise_invalid(f"{name}.type", "must be 'json_schema'")
    return as_object(wanted.get("schema"), f"{name}.schema")


def load_think(data: Mapping[str, Json]) -> bool | str | None:
    """Return Ollama's `think`: the extension of that name, else `thinking`, else
    `output_config.effort`, else None.

    Every type of `thinking` but "disabled" switches it on. The effort sets the level, except for
    "enabled", whose budget of tokens has no equivalent.
    """
    if data.get("think") is not None:
        return content_parts.load_think(data["think"])
    thinking = data.get("thinking") or {}
    kind = as_text(thinking.get("type"), "thinking.type") if thinking else None
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    if effort := _effort(data):
        return _EFFORTS.get(effort)
    return True if kind else None


def _effort(data: Mapping[str, Json]) -> str:
    effort = (data.get("output_config") or {}).get("effort")
    return "" if effort is None else as_text(effort, "output_config.effort").strip().lower()


def shows_thinking(data: Mapping[str, Json]) -> bool:
    """Whether the client wants the text of the thinking, and not only its signature."""
    return (data.get("thinking") or {}).get("display") != "omitted"


BYTES_PER_TOKEN = 4

#: The tokens of an image of any size.
IMAGE_TOKENS = 1500

#: Of a PDF in base64, most of which is its layout, fonts and images; and the
#: most that one can cost.
PDF_CHARS_PER_TOKEN, MAX_PDF_TOKENS = 20, 50_000


def estimate_tokens(asked: ChatRequest) -> int:
    """Return the tokens that the model will read, at least 1; raises BadRequest for JSON
    that can't be forwarded."""
    size = attachments = 0
    for message in asked.messages:
        size += _text_size(message.content, message.thinking)
        size += sum(
            _text_size(call.name) + len(encode_request(call.arguments))
            for call in message.tool_calls
        )
        attachments += sum(
            min(len(each.data) // PDF_CHARS_PER_TOKEN, MAX_PDF_TOKENS)
            if isinstance(each, Document)
            else IMAGE_TOKENS
            for each in message.attachments
        )
    for tool in asked.tools if asked.tool_choice != "none" else ():
        size += _text_size(tool.name, tool.description) + len(encode_request(tool.parameters or {}))
    return max(1, size // BYTES_PER_TOKEN + attachments)


def _text_size(*texts: str | None) -> int:
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts if text)
