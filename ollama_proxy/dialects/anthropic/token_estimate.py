"""Estimate the tokens of a request without a model: four bytes each.

Bytes and not characters, because one Chinese character is closer to one token than to a quarter of one.
"""

from __future__ import annotations

from ollama_proxy.hub import ChatRequest, Document
from ollama_proxy.wire import encode_request

BYTES_PER_TOKEN = 4

#: The tokens of an image of any size.
IMAGE_TOKENS = 1500

#: Of a PDF in base64, most of which is its layout, fonts and images; and the most that one can cost.
PDF_CHARS_PER_TOKEN, MAX_PDF_TOKENS = 20, 50_000


def estimate_tokens(asked: ChatRequest) -> int:
    """Return the tokens that the model will read, at least 1; raises BadRequest for JSON that can't be forwarded."""
    size = attachments = 0
    for message in asked.messages:
        size += _text_size(message.content) + _text_size(message.thinking or "")
        size += sum(_text_size(call.name) + len(encode_request(call.arguments)) for call in message.tool_calls)
        attachments += sum(
            min(len(each.data) // PDF_CHARS_PER_TOKEN, MAX_PDF_TOKENS) if isinstance(each, Document) else IMAGE_TOKENS
            for each in message.images
        )
    for tool in asked.tools if asked.tool_choice != "none" else ():
        size += _text_size(tool.name) + _text_size(tool.description or "") + len(encode_request(tool.parameters or {}))
    return max(1, size // BYTES_PER_TOKEN + attachments)


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
