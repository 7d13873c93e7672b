"""How many tokens a request will be, roughly and without asking a model: four bytes each.

Bytes and not characters, because one character of Chinese is nearer to a token than to a quarter of one.
"""

from __future__ import annotations

from collections.abc import Iterator

from ollama_proxy.hub import ChatRequest, Json, Message, Tool
from ollama_proxy.wire import encode_request

BYTES_PER_TOKEN = 4

#: What a picture costs, however many bytes it has.
IMAGE_TOKENS = 1500


def estimate_tokens(asked: ChatRequest) -> int:
    """Tokens of what the model will read, at least 1; raises BadRequest for JSON that can't be passed on anyway."""
    size = sum(sum(_message_sizes(message)) for message in asked.messages)
    if asked.tool_choice != "none":
        size += sum(sum(_tool_sizes(tool)) for tool in asked.tools)
    images = sum(len(message.images) for message in asked.messages)
    return max(1, size // BYTES_PER_TOKEN + images * IMAGE_TOKENS)


def _message_sizes(message: Message) -> Iterator[int]:
    yield _text_size(message.content)
    yield _text_size(message.thinking or "")
    for call in message.tool_calls:
        yield _text_size(call.name) + _json_size(call.arguments)


def _tool_sizes(tool: Tool) -> Iterator[int]:
    yield _text_size(tool.name)
    yield _text_size(tool.description or "")
    yield _json_size(tool.parameters or {})


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json_size(document: Json) -> int:
    return len(encode_request(document))
