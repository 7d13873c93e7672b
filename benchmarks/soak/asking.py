"""The dialects of the soak: how each asks for an answer, and how its answer reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.soak.words import prompt_of

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says, and how it says that it is over: `done`, `failed`, or
    "" where it does not."""

    text: str
    end: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask. `body` takes the prompt and whether to stream; `text_of` and `end_of` read
    one of its documents, be it a line, an event or the whole answer."""

    name: str
    path: str
    body: Callable[[str, bool], Document]
    text_of: Callable[[Document], str]
    end_of: Callable[[Document], str]

    def request(self, model: str, number: int, count: int, *, stream: bool) -> bytes:
        """The body that asks `model` for `count` words."""
        return orjson.dumps(
            {"model": model, "stream": stream} | self.body(prompt_of(number, count), stream)
        )

    def read(self, body: bytes, *, stream: bool) -> Said:
        """What an answer says, as far as it came."""
        text, end = "", ""
        for document in _documents(body) if stream else [_document(body)]:
            text += self.text_of(document)
            end = self.end_of(document) or end
        if not stream and end != "failed":
            end = "done" if text else ""
        return Said(text, end)


def _documents(body: bytes) -> Iterator[Document]:
    """The lines or the events of a stream; a piece of one at its end is left out."""
    for line in body.split(b"\n"):
        data = line.removeprefix(b"data: ") if line.startswith((b"data: ", b"{")) else b""
        if data == b"[DONE]":
            yield {"done": True}
        elif document := _document(data):
            yield document


def _document(data: bytes) -> Document:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _messages(prompt: str, _stream: bool) -> Document:
    return {"messages": [{"role": "user", "content": prompt}]}


def _plain_end(document: Document) -> str:
    """Ollama's `done`, OpenAI's `[DONE]`, and errors of all dialects."""
    if document.get("error"):
        return "failed"
    return "done" if document.get("done") is True else ""


def _chat_text(document: Document) -> str:
    return str((document.get("message") or {}).get("content") or "")


def _generate_text(document: Document) -> str:
    return str(document.get("response") or "")


def _openai_text(document: Document) -> str:
    choice = (document.get("choices") or [{}])[0]
    return str(
        (choice.get("delta") or choice.get("message") or {}).get("content")
        or choice.get("text")
        or ""
    )


def _anthropic_text(document: Document) -> str:
    if "content" in document:
        return "".join(block.get("text") or "" for block in document["content"])
    return str((document.get("delta") or {}).get("text") or "")


def _anthropic_end(document: Document) -> str:
    return "done" if document.get("type") == "message_stop" else _plain_end(document)


def _responses_text(document: Document) -> str:
    if document.get("object") == "response":
        parts = [part for item in document["output"] for part in item.get("content") or ()]
        return "".join(part.get("text") or "" for part in parts)
    return (
        str(document.get("delta") or "")
        if document.get("type") == "response.output_text.delta"
        else ""
    )


def _responses_end(document: Document) -> str:
    ends = {"response.completed": "done", "response.failed": "failed"}
    return ends.get(str(document.get("type"))) or ("failed" if document.get("error") else "")


DIALECTS = (
    Dialect("native chat", "/api/chat", _messages, _chat_text, _plain_end),
    Dialect(
        "native generate",
        "/api/generate",
        lambda prompt, _: {"prompt": prompt},
        _generate_text,
        _plain_end,
    ),
    Dialect("openai chat", "/v1/chat/completions", _messages, _openai_text, _plain_end),
    Dialect(
        "openai completions",
        "/v1/completions",
        lambda prompt, _: {"prompt": prompt},
        _openai_text,
        _plain_end,
    ),
    Dialect(
        "openai responses",
        "/v1/responses",
        lambda prompt, _: {"input": prompt},
        _responses_text,
        _responses_end,
    ),
    Dialect(
        "anthropic",
        "/v1/messages",
        lambda prompt, stream: _messages(prompt, stream) | {"max_tokens": 4096},
        _anthropic_text,
        _anthropic_end,
    ),
)
