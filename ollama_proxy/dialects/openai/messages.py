"""OpenAI's messages to hub messages: one for one, whatever parts they are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from ollama_proxy.dialects.openai.schemas import as_object, as_text, bad
from ollama_proxy.hub import Json, Message, ToolCall

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,(.+)", re.DOTALL | re.IGNORECASE)


def load_messages(messages: Json) -> list[Message]:
    """At least one message; an empty list would be an order to load the model. Raises BadRequest."""
    if not messages:
        bad("messages", "must hold at least one message")
    names: dict[str, str] = {}
    return [_load_message(message, f"messages[{index}]", names) for index, message in enumerate(messages)]


def _load_message(message: Json, where: str, names: dict[str, str]) -> Message:
    """`names` collects which tool each call id stands for, for the results that follow."""
    if not isinstance(message, dict):
        bad(where, "must be an object")
    content, images = _load_content(message.get("content"), f"{where}.content")
    match message.get("role"):
        case "system" | "developer":
            return Message("system", content, images=images)
        case "user":
            return Message("user", content, images=images)
        case "assistant":
            return _load_assistant(message, content, where, names)
        case "tool":
            return _load_result(message, content, images, where, names)
        case _:
            bad(f"{where}.role", "must be system, developer, user, assistant or tool")


def _load_result(
    message: Mapping[str, Json], content: str, images: list[str], where: str, names: dict[str, str]
) -> Message:
    call_id = as_text(message.get("tool_call_id") or "", f"{where}.tool_call_id")
    tool_name = as_text(message.get("name") or names.get(call_id) or "", f"{where}.name")
    return Message("tool", content, images=images, tool_name=tool_name or None, tool_call_id=call_id or None)


def _load_assistant(message: Mapping[str, Json], content: str, where: str, names: dict[str, str]) -> Message:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        bad(f"{where}.tool_calls", "must be a list")
    loaded = [_load_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)]
    names.update({call.id: call.name for call in loaded})
    thinking = message.get("reasoning") or message.get("reasoning_content")
    if thinking is not None and not isinstance(thinking, str):
        bad(f"{where}.reasoning", "must be a text")
    return Message("assistant", content or str(message.get("refusal") or ""), thinking=thinking, tool_calls=loaded)


def _load_call(call: Json, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        bad(f"{where}.function.name", "is missing")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            bad(f"{where}.function.arguments", "invalid tool call arguments: not JSON")
    if not isinstance(arguments, dict):
        bad(f"{where}.function.arguments", "invalid tool call arguments: not an object")
    return ToolCall(as_text(call.get("id") or "", f"{where}.id"), function["name"], arguments)


def _load_content(content: Json, where: str) -> tuple[str, list[str]]:
    """The text and the images of a message, whether it is one text or a list of parts."""
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        bad(where, "must be a text or a list of parts")
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(content):
        _load_part(part, f"{where}[{index}]", texts, images)
    return "\n".join(texts), images


def _load_part(part: Json, where: str, texts: list[str], images: list[str]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "text" | "refusal":
            value = part.get(kind)
            texts.append(value if isinstance(value, str) else bad(f"{where}.{kind}", "must be a text"))
        case "image_url":
            images.append(_load_image(part.get("image_url"), f"{where}.image_url"))
        case "input_audio":
            data = as_object(part.get("input_audio"), f"{where}.input_audio").get("data")
            # Ollama takes sound by the same field and tells it apart by its bytes.
            images.append(data if isinstance(data, str) and data else bad(f"{where}.input_audio.data", "is missing"))
        case _:
            bad(f"{where}.type", "must be text, image_url, input_audio or refusal")


def _load_image(image: Json, where: str) -> str:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        bad(f"{where}.url", "is missing")
    match = _DATA_URI.fullmatch(url)
    if match is None:
        bad(f"{where}.url", "must be a data URI with base64; this version does not fetch images from addresses")
    return match[1]
