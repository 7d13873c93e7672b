"""Load OpenAI's messages as hub messages, one for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_proxy.dialects.content_parts import load_arguments, load_content, load_file, load_image
from ollama_proxy.dialects.schema_fields import as_array, as_object, as_text, raise_invalid, text_in
from ollama_proxy.dialects.tools import load_custom_input
from ollama_proxy.hub import Attachment, Json, Message, ToolCall
from ollama_proxy.upstreams import pace


@dataclass(slots=True, frozen=True)
class _Calls:
    """The tool calls so far, for the results that follow them."""

    #: The name of the tool by the id of the call.
    names: dict[str, str] = field(default_factory=dict)
    #: The id of the last call by the name of the tool.
    last: dict[str, str] = field(default_factory=dict)


def load_messages(messages: Json) -> list[Message]:
    """Load the messages; raises BadRequest, also for an empty array, for which Ollama
    would only load the model."""
    if not messages:
        raise_invalid("messages", "must contain at least one message")
    calls = _Calls()
    return [
        _load_message(message, f"messages[{index}]", calls)
        for index, message in enumerate(pace(messages))
    ]


def _load_message(message: Json, where: str, calls: _Calls) -> Message:
    if not isinstance(message, dict):
        raise_invalid(where, "must be an object")
    content, attachments = load_content(message.get("content"), f"{where}.content", _load_part)
    match message.get("role"):
        case "system" | "developer" | "user" as role:
            return Message("user" if role == "user" else "system", content, attachments=attachments)
        case "assistant":
            return _load_assistant(message, content, where, calls)
        case "tool":
            call_id = text_in(message, "tool_call_id", where)
            name = text_in(message, "name", where) or calls.names.get(call_id)
            return Message(
                "tool",
                content,
                attachments=attachments,
                tool_name=name,
                tool_call_id=call_id or None,
            )
        case "function":
            name = as_text(message.get("name"), f"{where}.name")
            # Such a result has only the name of the function.
            return Message(
                "tool",
                content,
                attachments=attachments,
                tool_name=name,
                tool_call_id=calls.last.get(name),
            )
        case _:
            raise_invalid(
                f"{where}.role",
                "must be 'system', 'developer', 'user', 'assistant', 'tool' or 'function'",
            )


def _load_assistant(
    message: Mapping[str, Json], content: str, where: str, calls: _Calls
) -> Message:
    given = as_array(message.get("tool_calls") or [], f"{where}.tool_calls")
    tool_calls = [
        _load_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(pace(given))
    ]
    if (function := message.get("function_call")) is not None:
        # The older form has no id; this one stays the same when the history is sent again.
        name, arguments = _load_function(function, f"{where}.function_call")
        tool_calls.append(ToolCall(f"call_function_{len(calls.names)}", name, arguments))
    for call in tool_calls:
        calls.names[call.id], calls.last[call.name] = call.name, call.id
    thinking = message.get("reasoning") or message.get("reasoning_content")
    if thinking is not None:
        as_text(thinking, f"{where}.reasoning")
    return Message(
        "assistant",
        content or str(message.get("refusal") or ""),
        thinking=thinking,
        tool_calls=tool_calls,
    )


def _load_call(call: Json, where: str) -> ToolCall:
    if isinstance(call, dict) and call.get("type") == "custom":
        custom = as_object(call.get("custom"), f"{where}.custom")
        name = as_text(custom.get("name"), f"{where}.custom.name")
        arguments = load_custom_input(custom.get("input"), f"{where}.custom.input")
    else:
        function = call.get("function") if isinstance(call, dict) else None
        name, arguments = _load_function(function, f"{where}.function")
    return ToolCall(text_in(call, "id", where), name, arguments)


def _load_function(function: Json, where: str) -> tuple[str, dict[str, Json]]:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise_invalid(f"{where}.name", "is required")
    return function["name"], load_arguments(function.get("arguments"), f"{where}.arguments")


def _load_part(part: Json, where: str, texts: list[str], attachments: list[Attachment]) -> None:
    match part:
        case {"type": "text" | "refusal" as kind}:
            texts.append(as_text(part.get(kind), f"{where}.{kind}"))
        case {"type": "image_url"}:
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            attachments.append(load_image(url, f"{where}.image_url.url"))
        case {"type": "input_audio"}:
            # Ollama accepts audio in the field for images and recognizes it by its bytes.
            audio = as_object(part.get("input_audio"), f"{where}.input_audio").get("data")
            if not isinstance(audio, str) or not audio or ":" in audio:
                # Some servers would fetch a URL.
                raise_invalid(f"{where}.input_audio.data", "is required and must be base64")
            attachments.append(audio)
        case {"type": "file"}:
            load_file(part.get("file"), f"{where}.file", texts, attachments)
        case _:
            raise_invalid(
                f"{where}.type", "must be 'text', 'image_url', 'input_audio', 'file' or 'refusal'"
            )
