"""Load Anthropic's messages as hub messages: results of tools become messages of their own, all
other blocks of a message become one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ollama_proxy.dialects.content_parts import load_arguments, load_image, load_pdf
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid, text_in
from ollama_proxy.hub import Attachment, Json, Message, ToolCall
from ollama_proxy.upstreams import pace


@dataclass(slots=True)
class Blocks:
    """The contents of the blocks of one message, or of one result."""

    #: The name of the tool by the id of the call, in the whole conversation:
    #: results have only the id.
    names: dict[str, str]
    #: Paragraphs.
    texts: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)


#: Adds one block to those that were read; the string is the path of the block in the request.
Load = Callable[[dict[str, Json], Blocks, str], None]
Kinds = dict[str, Load]


def load_system(system: Json) -> list[Message]:
    """Return the system prompt as a message, none if it is empty."""
    text = "\n\n".join(_load_content(system, "system", SYSTEM, {}).texts)
    return [Message("system", text)] if text else []


def load_messages(messages: list[Json]) -> list[Message]:
    """Load the conversation; raises BadRequest that names the invalid part."""
    names: dict[str, str] = {}
    loaded: list[Message] = []
    for index, message in enumerate(pace(messages)):
        where = f"messages[{index}]"
        role = _choose(ROLES, as_object(message, where).get("role"), f"{where}.role")
        blocks = _load_content(message.get("content"), f"{where}.content", ROLES[role], names)
        text, thinking = "\n".join(blocks.texts), "\n".join(filter(None, blocks.thoughts)) or None
        own = Message(
            role, text, thinking=thinking, attachments=blocks.attachments, tool_calls=blocks.calls
        )
        if role == "assistant":
            loaded += [own, *blocks.results]
        else:
            # Results come right after the calls, so before the user's own text.
            loaded += blocks.results
            if own.content or own.attachments or not blocks.results:
                loaded.append(own)
    return loaded


def _load_content(content: Json, where: str, kinds: Kinds, names: dict[str, str]) -> Blocks:
    """Load content: a string, or an array of blocks of the allowed `kinds`."""
    blocks = Blocks(names)
    if isinstance(content, str):
        blocks.texts.append(content)
    elif isinstance(content, list):
        for index, block in enumerate(pace(content)):
            place = f"{where}[{index}]"
            kind = _choose(kinds, as_object(block, place).get("type"), f"{place}.type")
            kinds[kind](block, blocks, place)
    elif content is not None:
        raise_invalid(where, "must be a string or an array of content blocks")
    return blocks


def _choose(known: Collection[str], value: Json, where: str) -> str:
    """Return the value if it is one of the known ones; raises BadRequest."""
    if isinstance(value, str) and value in known:
        return value
    raise_invalid(where, f"must be one of {', '.join(map(repr, known))}")


def _load_image(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    source = as_object(block.get("source"), f"{where}.source")
    match source.get("type"):
        case "base64":
            _decode(source.get("data"), f"{where}.source.data")
            blocks.attachments.append(source["data"])
        case "url":
            blocks.attachments.append(load_image(source.get("url"), f"{where}.source.url"))
        case _:
            raise_invalid(
                f"{where}.source.type", "must be 'base64' or 'url': stored files are not supported"
            )


def _decode(data: Json, where: str) -> bytes:
    try:
        # Some encoders insert line breaks, and Ollama ignores them.
        decoded = base64.b64decode(as_text(data, where).replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise_invalid(where, "must be base64")
    return decoded or raise_invalid(where, "must not be empty")


def _load_document(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """Add a PDF, or the text of a document after its title and its context."""
    source = as_object(block.get("source"), f"{where}.source")
    is_pdf = (source.get("type"), source.get("media_type")) == ("base64", "application/pdf")
    # The title is the name of a PDF.
    for name in ("context",) if is_pdf else ("title", "context"):
        if block.get(name):
            blocks.texts.append(f"{name.capitalize()}: {as_text(block[name], f'{where}.{name}')}")
    if is_pdf:
        data = as_text(source.get("data"), f"{where}.source.data")
        title = text_in(block, "title", where)
        blocks.attachments.append(load_pdf(data, title, where, blocks.texts, blocks.attachments))
        return
    match source.get("type"), source.get("media_type"):
        case "text", _:
            blocks.texts.append(as_text(source.get("data"), f"{where}.source.data"))
        case "content", _:
            content = _load_content(
                source.get("content"), f"{where}.source.content", DOCUMENT, blocks.names
            )
            blocks.texts += content.texts
            blocks.attachments += content.attachments
        case "base64", "text/plain":
            try:
                blocks.texts.append(_decode(source.get("data"), f"{where}.source.data").decode())
            except UnicodeDecodeError:
                raise_invalid(f"{where}.source.data", "must be base64-encoded UTF-8 text")
        case _:
            raise_invalid(
                f"{where}.source", "must be text or a PDF: URLs and stored files are not supported"
            )


def _load_search_result(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    title, source = text_in(block, "title", where), text_in(block, "source", where)
    content = _load_content(block.get("content"), f"{where}.content", SYSTEM, blocks.names)
    blocks.texts += [f"Search result: {title} ({source})", *content.texts]


def _load_call(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    call_id, name = text_in(block, "id", where), text_in(block, "name", where)
    if not call_id or not name:
        raise_invalid(f"{where}.{'name' if call_id else 'id'}", "is required")
    blocks.names[call_id] = name
    blocks.calls.append(
        ToolCall(call_id, name, load_arguments(block.get("input"), f"{where}.input"))
    )


def _load_result(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    content = _load_content(block.get("content"), f"{where}.content", RESULT, blocks.names)
    text = "\n".join(content.texts)
    text = f"Error: {text}" if block.get("is_error") is True else text
    _add_result(block, text, content.attachments, blocks, where)


def _load_web_search(block: dict[str, Json], blocks: Blocks, where: str) -> None:
    """Add what another server found: titles and URLs; the pages themselves are encrypted."""
    found = block.get("content")
    if isinstance(found, list):
        hits = [as_object(hit, f"{where}.content[{index}]") for index, hit in enumerate(found)]
        text = "\n".join(f"- {hit.get('title') or ''}: {hit.get('url') or ''}" for hit in hits)
    else:
        text = f"Error: {as_object(found, f'{where}.content').get('error_code')}"
    _add_result(block, text, [], blocks, where)


def _add_result(
    block: dict[str, Json], text: str, attachments: list[Attachment], blocks: Blocks, where: str
) -> None:
    call_id = as_text(block.get("tool_use_id"), f"{where}.tool_use_id")
    name = blocks.names.get(call_id)
    blocks.results.append(
        Message("tool", text, attachments=attachments, tool_name=name, tool_call_id=call_id)
    )


SYSTEM: Kinds = {
    "text": lambda block, blocks, where: blocks.texts.append(
        as_text(block.get("text"), f"{where}.text")
    )
}
DOCUMENT: Kinds = SYSTEM | {"image": _load_image}
_READ: Kinds = DOCUMENT | {"document": _load_document, "search_result": _load_search_result}
RESULT: Kinds = _READ | {
    # A tool that a search has found. The request defines all tools from the start,
    # so its name is enough.
    "tool_reference": lambda block, blocks, where: blocks.texts.append(
        as_text(block.get("tool_name"), f"{where}.tool_name")
    ),
}
USER: Kinds = _READ | {"tool_result": _load_result}
ASSISTANT: Kinds = SYSTEM | {
    # With any signature; it is empty if the client got only the signature.
    "thinking": lambda block, blocks, where: blocks.thoughts.append(
        text_in(block, "thinking", where)
    ),
    # Only the server that wrote it can read it, so it is dropped.
    "redacted_thinking": lambda block, blocks, where: None,
    "tool_use": _load_call,
    "server_tool_use": _load_call,
    "web_search_tool_result": _load_web_search,
}

#: The types of blocks that a message of each role may contain.
ROLES: dict[str, Kinds] = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}
