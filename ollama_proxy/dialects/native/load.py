"""Load Ollama's own requests as hub requests, for upstreams with another API.

What Ollama would refuse is refused with its text; what only Ollama supports is refused or reported
as ignored. Schemas of tools stay unchanged, and absent parameters stay absent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from ollama_proxy.dialects.content_parts import load_format, load_function, load_timeout_ms
from ollama_proxy.dialects.native.schemas import as_go
from ollama_proxy.dialects.schema_fields import is_number, is_texts, raise_invalid
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    Json,
    Message,
    Tool,
    ToolCall,
)
from ollama_proxy.policy import keep_alive_s
from ollama_proxy.settings import OPTION_TYPES, THINK_LEVELS
from ollama_proxy.upstreams import pace

#: The purposes of a request that has nothing to answer, in Ollama's words.
LOAD, UNLOAD = "load", "unload"

#: By route: the field that is empty in a request that only loads or unloads the model.
_SUBJECT = {"chat": "messages", "generate": "prompt", "embed": "input", "embeddings": "prompt"}

#: Fields that have no effect on upstreams of other kinds.
_WITHOUT_EFFECT = ("context", "shift", "keep_alive")

#: Roles that every upstream knows; Ollama itself accepts any. `developer` is OpenAI's
#: newer name for `system`.
_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {"developer": "system"}

#: The types of options that are numbers, as Ollama names them.
_NUMBERS = {int: "type integer", float: "type float32"}

_LEVELS_TEXT = '"high", "medium", "low", "max", true, or false'
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


def find_purpose(route: str, data: Mapping[str, Json]) -> str | None:
    """Return `load` or `unload` if the request only loads or unloads the model, None if it is to be
    answered. `route`: chat, generate, embed or embeddings."""
    # An input of [""] gets an embedding, one of "" does not.
    if data.get(_SUBJECT[route]):
        return None
    return UNLOAD if keep_alive_s(data.get("keep_alive")) == 0 else LOAD


def find_ignored(data: Mapping[str, Json]) -> list[str]:
    """Return the fields of a request that have no effect on such an upstream."""
    return [name for name in _WITHOUT_EFFECT if data.get(name) not in (None, [], "")]


def load_chat(data: Mapping[str, Json]) -> ChatRequest:
    """Load the body of POST /api/chat; raises BadRequest."""
    messages, tools = (
        _listed(data, "messages", "ChatRequest"),
        _listed(data, "tools", "ChatRequest"),
    )
    return ChatRequest(
        messages=[
            _load_message(message, f"messages[{index}]")
            for index, message in enumerate(pace(messages))
        ],
        tools=[_load_tool(tool, f"tools[{index}]") for index, tool in enumerate(pace(tools))],
        format=load_format(data.get("format")),
        **_load_text(data, "ChatRequest"),
    )


def load_generate(data: Mapping[str, Json]) -> ChatRequest | GenerateRequest:
    """Load the body of POST /api/generate as a chat of one turn or, with a suffix, as text to fill
    in. Raises BadRequest, also for a request that needs the model's own template."""
    texts = {
        name: _text(data, name, "GenerateRequest")
        for name in ("prompt", "suffix", "system", "template")
    }
    if _flag(data, "raw", "GenerateRequest"):
        raise_invalid(
            "raw", "is not supported for this model: its server always applies its own template"
        )
    if texts["template"]:
        raise_invalid(
            "template",
            "is not supported for this model: its server always applies its own template",
        )
    images = _load_images(_listed(data, "images", "GenerateRequest"))
    asked, format_ = _load_text(data, "GenerateRequest"), load_format(data.get("format"))
    if texts["suffix"]:
        if images or format_ is not None:
            raise_invalid("suffix", "can't be combined with images or format for this model")
        return GenerateRequest(
            prompt=texts["prompt"], system=texts["system"] or None, suffix=texts["suffix"], **asked
        )
    system = [Message("system", texts["system"])] if texts["system"] else []
    user = Message("user", texts["prompt"], attachments=images)
    return ChatRequest(messages=[*system, user], format=format_, **asked)


def load_embed(data: Mapping[str, Json]) -> EmbedRequest:
    """Load the body of POST /api/embed; raises BadRequest."""
    value = data.get("input") or []
    texts = [value] if isinstance(value, str) else value
    if not is_texts(texts):
        raise BadRequest("invalid input type", param="input")
    dimensions = as_go(data.get("dimensions") or 0, "EmbedRequest.dimensions", "int", int)
    return EmbedRequest(
        input=texts,
        dimensions=dimensions if dimensions > 0 else None,
        truncate=_flag(data, "truncate", "EmbedRequest"),
        **_load_model(data),
    )


def load_embeddings(data: Mapping[str, Json]) -> EmbedRequest:
    """Load the body of POST /api/embeddings, which has one text; raises BadRequest."""
    return EmbedRequest(input=[_text(data, "prompt", "EmbeddingRequest")], **_load_model(data))


def _load_model(data: Mapping[str, Json]) -> dict[str, Any]:
    """Return the fields of every hub request. `keep_alive` is not among them: it concerns
    models that Ollama holds."""
    return {
        "model": data.get("model") or "",
        "options": load_options(data.get("options") or {}),
        "timeout_ms": load_timeout_ms(data),
    }


def _load_text(data: Mapping[str, Json], struct: str) -> dict[str, Any]:
    """Return the fields that chats and completions share."""
    exclude = data.get("exclude_reasoning")
    shared, think, logprobs = (
        _load_model(data),
        load_think(data.get("think")),
        _flag(data, "logprobs", struct),
    )
    top_logprobs = as_go(data.get("top_logprobs") or 0, f"{struct}.top_logprobs", "int", int)
    if not 0 <= top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20", param="top_logprobs")
    return shared | {
        "stream": data.get("stream") is not False,
        "think": think,
        "exclude_reasoning": exclude if isinstance(exclude, bool) else None,
        "logprobs": logprobs or None,
        "top_logprobs": int(top_logprobs) or None,
        "truncate": _flag(data, "truncate", struct),
    }


def load_options(options: Mapping[str, Json]) -> dict[str, Json]:
    """Return the options as Ollama reads them: without those that are null, and integers
    without a fraction. Raises BadRequest for a known option of another type, for which
    Ollama would return 500."""
    loaded = {name: value for name, value in options.items() if value is not None}
    for name, value in loaded.items():
        if name == "stop":
            wanted, is_valid = (
                "an array of strings" if isinstance(value, list) else "type array",
                is_texts(value),
            )
        elif wanted := _NUMBERS.get(OPTION_TYPES.get(name, str), ""):
            is_valid = is_number(value) and isfinite(value)
        else:
            continue
        if not is_valid:
            raise BadRequest(f'option "{name}" must be of {wanted}', param=f"options.{name}")
        if name == "stop":
            loaded[name] = list(filter(None, value))
        elif OPTION_TYPES[name] is int:
            loaded[name] = int(value)
    return loaded


def load_think(think: Json) -> bool | str | None:
    """Return `think`: whether and how much to think; raises BadRequest as Ollama does."""
    if think is None or isinstance(think, bool):
        return think
    if not isinstance(think, str):
        raise BadRequest(f"think must be a boolean or string ({_LEVELS_TEXT})", param="think")
    if think not in THINK_LEVELS:
        raise BadRequest(
            f'invalid think value: "{think[:40]}" (must be {_LEVELS_TEXT})', param="think"
        )
    return think


def _load_message(message: Json, where: str) -> Message:
    as_go(message, f"ChatRequest.{where}", "api.Message", dict)
    struct = "ChatRequest.messages"
    role = _ROLES.get(_text(message, "role", struct).lower())
    if role is None:
        raise_invalid(f"{where}.role", "must be 'system', 'user', 'assistant' or 'tool'")
    calls = _listed(message, "tool_calls", struct)
    return Message(
        role,
        _text(message, "content", struct),
        thinking=_text(message, "thinking", struct) or None,
        attachments=_load_images(_listed(message, "images", struct)),
        tool_calls=[
            _load_call(call, f"{where}.tool_calls[{index}]")
            for index, call in enumerate(pace(calls))
        ],
        tool_name=_text(message, "tool_name", struct) or None,
        tool_call_id=_text(message, "tool_call_id", struct) or None,
    )


def _load_call(call: Json, where: str) -> ToolCall:
    """Load a call of an earlier turn. Clients of Ollama may omit its id,
    which then stays absent."""
    as_go(call, f"ChatRequest.{where}", "api.ToolCall", dict)
    function = as_go(
        call.get("function") or {}, f"ChatRequest.{where}.function", "api.ToolCallFunction", dict
    )
    name = _text(function, "name", "ToolCallFunction") or raise_invalid(
        f"{where}.function.name", "is required"
    )
    given = function.get("arguments")
    arguments = as_go(
        {} if given is None else given, f"ChatRequest.{where}.function.arguments", "object", dict
    )
    return ToolCall(_text(call, "id", "ToolCall"), name, arguments)


def _load_tool(tool: Json, where: str) -> Tool:
    as_go(tool, f"ChatRequest.{where}", "api.Tool", dict)
    if tool.get("type") not in (None, "", "function"):
        raise_invalid(
            f"{where}.type", "must be 'function': no other type of tool is supported for this model"
        )
    return load_function(tool.get("function"), f"{where}.function")


def _load_images(images: Sequence[Json]) -> list[str]:
    """Return the images as base64 without line breaks; raises BadRequest as Go's decoder
    does, which skips those."""
    loaded = []
    for image in images:
        as_go(image, "Request.images", "[]uint8", str)
        plain: str = image.replace("\r", "").replace("\n", "")
        try:
            base64.b64decode(plain, validate=True)
        except (binascii.Error, ValueError):
            found = _NOT_BASE64.search(plain)
            place = found.start() if found else len(plain)
            raise BadRequest(f"illegal base64 data at input byte {place}", param="images") from None
        loaded.append(plain)
    return loaded


def _text(data: Mapping[str, Json], name: str, struct: str) -> str:
    value = data.get(name)
    return "" if value is None else str(as_go(value, f"{struct}.{name}", "string", str))


def _flag(data: Mapping[str, Json], name: str, struct: str) -> bool | None:
    value = data.get(name)
    return None if value is None else bool(as_go(value, f"{struct}.{name}", "bool", bool))


def _listed(data: Mapping[str, Json], name: str, struct: str) -> list[Json]:
    value = data.get(name)
    return [] if value is None else list(as_go(value, f"{struct}.{name}", "[]interface {}", list))
