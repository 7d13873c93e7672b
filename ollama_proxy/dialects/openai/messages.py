"""OpenAI's messages to hub messages: one for one, whatever parts they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_proxy.dialects.content_parts import load_arguments, load_content, load_image
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.hub import Image, Json, Message, ToolCall
from ollama_proxy.upstreams import paced


@dataclass(slots=True, frozen=True)
class _Called:
    """The calls so far, for the results that follow."""

    #: Which tool the id of each call stands for.
    names: dict[str, str] = field(default_factory=dict)
    #: The last call of each tool, by its id.
    last: dict[str, str] = field(default_factory=dict)


def load_messages(messages: Json) -> list[Message]:
    """At least one message; an empty list would be an order to load the model. Raises BadRequest."""
    if not messages:
        raise_invalid("messages", "must contain at least one message")
    called = _Called()
    return [_load_message(message, f"messages[{index}]", called) for index, message in enumerate(paced(messages))]


def _load_message(message: Json, where: str, called: _Called) -> Message:
    if not isinstance(message, dict):
        raise_invalid(where, "must be an object")
    content, images = load_content(message.get("content"), f"{where}.content", _load_part)
    match message.get("role"):
        case "system" | "developer":
            return Message("system", content, images=images)
        case "user":
            return Message("user", content, images=images)
        case "assistant":
            return _load_assistant(message, content, where, called)
        case "tool":
            call_id = as_text(message.get("tool_call_id") or "", f"{where}.tool_call_id")
            name = as_text(message.get("name") or called.names.get(call_id, ""), f"{where}.name")
            return Message("tool", content, images=images, tool_name=name or None, tool_call_id=call_id or None)
        case "function":
            name = as_text(message.get("name"), f"{where}.name")
            # Its result names only the function.
            return Message("tool", content, images=images, tool_name=name, tool_call_id=called.last.get(name))
        case _:
            raise_invalid(f"{where}.role", "must be 'system', 'developer', 'user', 'assistant', 'tool' or 'function'")


def _load_assistant(message: Mapping[str, Json], content: str, where: str, called: _Called) -> Message:
    given = message.get("tool_calls") or []
    if not isinstance(given, list):
        raise_invalid(f"{where}.tool_calls", "must be an array")
    calls = [_load_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(paced(given))]
    if (function := message.get("function_call")) is not None:
        # The older form has no id: the call gets one that is the same whenever the history is sent again.
        name, arguments = _load_function(function, f"{where}.function_call")
        calls.append(ToolCall(f"call_function_{len(called.names)}", name, arguments))
    called.names.update({call.id: call.name for call in calls})
    called.last.update({call.name: call.id for call in calls})
    thinking = message.get("reasoning") or message.get("reasoning_content")
    if thinking is not None and not isinstance(thinking, str):
        raise_invalid(f"{where}.reasoning", "must be a string")
    return Message("assistant", content or str(message.get("refusal") or ""), thinking=thinking, tool_calls=calls)


def _load_call(call: Json, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name, arguments = _load_function(function, f"{where}.function")
    return ToolCall(as_text(call.get("id") or "", f"{where}.id"), name, arguments)


def _load_function(function: Json, where: str) -> tuple[str, dict[str, Json]]:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise_invalid(f"{where}.name", "is required")
    return function["name"], load_arguments(function.get("arguments"), f"{where}.arguments")


def _load_part(part: Json, where: str, texts: list[str], images: list[Image]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "text" | "refusal":
            value = part.get(kind)
            texts.append(value if isinstance(value, str) else raise_invalid(f"{where}.{kind}", "must be a string"))
        case "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            images.append(load_image(url, f"{where}.image_url.url"))
        case "input_audio":
            # Ollama takes sound by the same field and tells it apart by its bytes.
            sound = as_object(part.get("input_audio"), f"{where}.input_audio").get("data")
            if not isinstance(sound, str) or not sound:
                raise_invalid(f"{where}.input_audio.data", "is required")
            # Some servers load an address that is given here.
            images.append(raise_invalid(f"{where}.input_audio.data", "must be base64") if ":" in sound else sound)
        case _:
            raise_invalid(f"{where}.type", "must be 'text', 'image_url', 'input_audio' or 'refusal'")
