"""Anthropic's messages to hub messages: results of tools become messages of their own, the rest of a message stays
one, whatever blocks it is made of."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field

from ollama_proxy.dialects.content_parts import load_arguments, load_image
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.hub import Image, Json, Message, ToolCall
from ollama_proxy.upstreams import paced


@dataclass(slots=True)
class Blocks:
    """What the blocks of one message, or of one result, amount to."""

    #: Which tool the id of each call stands for, over the whole conversation: results say only the id.
    names: dict[str, str]
    #: Paragraphs.
    texts: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)


#: Adds one block to what was read so far; the text is its place in the request.
Load = Callable[[dict[str, Json], Blocks, str], None]
Kinds = dict[str, Load]


def load_system(system: Json) -> list[Message]:
    """The system prompt as a message; none where it is empty."""
    text = "\n\n".join(_load_content(system, "system", SYSTEM, {}).texts)
    return [Message("system", text)] if text else []


def load_messages(messages: list[Json]) -> list[Message]:
    """The conversation; raises BadRequest that names the part at fault."""
    names: dict[str, str] = {}
    loaded: list[Message] = []
    for index, message in enumerate(paced(messages)):
        where = f"messages[{index}]"
        role = as_object(message, where).get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise_invalid(f"{where}.role", f"must be one of {', '.join(map(repr, ROLES))}")
        blocks = _load_content(message.get("content"), f"{where}.content", ROLES[role], names)
        text, thinking = "\n".join(blocks.texts), "\n".join(blocks.thoughts) or None
        own = Message(role, text, thinking=thinking, images=blocks.images, tool_calls=blocks.calls)
        if role == "assistant":
            loaded += [own, *blocks.results]
        else:
            # Results stand right behind the calls, so before what the user says as well.
            loaded += blocks.results
            if own.content or own.images or not blocks.results:
                loaded.append(own)
    return loaded


def _load_content(content: Json, where: str, kinds: Kinds, names: dict[str, str]) -> Blocks:
    """Content is one text, or a list of blocks of the `kinds` that may stand there."""
    blocks = Blocks(names)
    if isinstance(content, str):
        blocks.texts.append(content)
    elif isinstance(content, list):
        for index, block in enumerate(paced(content)):
            kind = as_object(block, f"{where}[{index}]").get("type")
            if not isinstance(kind, str) or kind not in kinds:
                raise_invalid(f"{where}[{index}].type", f"must be one of {', '.join(map(repr, kinds))}")
            kinds[kind](block, blocks, f"{where}[{index}]")
    elif content is not None:
        raise_invalid(where, "must be a string or an array of content blocks")
    return blocks


def _load_text(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    blocks.texts.append(as_text(block.get("text"), f"{where}.text"))


def _load_image(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    source = as_object(block.get("source"), f"{where}.source")
    match source.get("type"):
        case "base64":
            _decode(source.get("data"), f"{where}.source.data")
            blocks.images.append(source["data"])
        case "url":
            blocks.images.append(load_image(source.get("url"), f"{where}.source.url"))
        case _:
            raise_invalid(f"{where}.source.type", "must be 'base64' or 'url': stored files are not supported")


def _decode(data: Json, where: str) -> bytes:
    try:
        # Some encoders break lines, and Ollama doesn't mind.
        decoded = base64.b64decode(as_text(data, where).replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise_invalid(where, "must be base64")
    return decoded or raise_invalid(where, "must not be empty")


def _load_document(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """Its text, with its title and its context in front."""
    for name in ("title", "context"):
        if block.get(name):
            blocks.texts.append(f"{name.capitalize()}: {as_text(block[name], f'{where}.{name}')}")
    source = as_object(block.get("source"), f"{where}.source")
    match source.get("type"), source.get("media_type"):
        case "text", _:
            blocks.texts.append(as_text(source.get("data"), f"{where}.source.data"))
        case "content", _:
            content = _load_content(source.get("content"), f"{where}.source.content", DOCUMENT, blocks.names)
            blocks.texts += content.texts
            blocks.images += content.images
        case "base64", "text/plain":
            try:
                blocks.texts.append(_decode(source.get("data"), f"{where}.source.data").decode())
            except UnicodeDecodeError:
                raise_invalid(f"{where}.source.data", "must be base64-encoded UTF-8 text")
        case _:
            raise_invalid(f"{where}.source", "must be text: PDFs, URLs and stored files are not supported")


def _load_search_result(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    title, source = (as_text(block.get(name) or "", f"{where}.{name}") for name in ("title", "source"))
    content = _load_content(block.get("content"), f"{where}.content", SYSTEM, blocks.names)
    blocks.texts += [f"Search result: {title} ({source})", *content.texts]


def _load_thinking(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """Whoever signed it; it is empty where a client was shown the signature alone."""
    if thought := as_text(block.get("thinking") or "", f"{where}.thinking"):
        blocks.thoughts.append(thought)


def _load_redacted(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """Thinking that only the one who wrote it can read: the conversation goes on without."""


def _load_call(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    call_id, name = (as_text(block.get(part) or "", f"{where}.{part}") for part in ("id", "name"))
    if not call_id or not name:
        raise_invalid(f"{where}.{'name' if call_id else 'id'}", "is required")
    blocks.names[call_id] = name
    blocks.calls.append(ToolCall(call_id, name, load_arguments(block.get("input"), f"{where}.input")))


def _load_result(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    content = _load_content(block.get("content"), f"{where}.content", RESULT, blocks.names)
    text = "\n".join(content.texts)
    text = f"Error: {text}" if block.get("is_error") is True else text
    _add_result(block, text, content.images, blocks, where)


def _load_web_search(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """What another server found: titles and addresses; the pages themselves are encrypted."""
    found = block.get("content")
    if isinstance(found, list):
        hits = [as_object(hit, f"{where}.content[{index}]") for index, hit in enumerate(found)]
        text = "\n".join(f"- {hit.get('title') or ''}: {hit.get('url') or ''}" for hit in hits)
    else:
        text = f"Error: {as_object(found, f'{where}.content').get('error_code')}"
    _add_result(block, text, [], blocks, where)


def _add_result(block: dict[str, Json], text: str, images: list[Image], blocks: Blocks, where: str) -> None:
    call_id = as_text(block.get("tool_use_id"), f"{where}.tool_use_id")
    name = blocks.names.get(call_id)
    blocks.results.append(Message("tool", text, images=images, tool_name=name, tool_call_id=call_id))


def _load_reference(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """A tool that a search has found: all tools are on offer here from the start, so its name says enough."""
    blocks.texts.append(as_text(block.get("tool_name"), f"{where}.tool_name"))


SYSTEM: Kinds = {"text": _load_text}
DOCUMENT: Kinds = SYSTEM | {"image": _load_image}
_READ: Kinds = DOCUMENT | {"document": _load_document, "search_result": _load_search_result}
RESULT: Kinds = _READ | {"tool_reference": _load_reference}
USER: Kinds = _READ | {"tool_result": _load_result}
ASSISTANT: Kinds = SYSTEM | {
    "thinking": _load_thinking,
    "redacted_thinking": _load_redacted,
    "tool_use": _load_call,
    "server_tool_use": _load_call,
    "web_search_tool_result": _load_web_search,
}

#: The kinds of blocks that a message of each role may hold.
ROLES: dict[str, Kinds] = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}
