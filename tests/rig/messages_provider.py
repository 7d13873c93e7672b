"""A provider of Anthropic's Messages API on real sockets: its list of models, and messages
as a test wants them said.

What is said is a list of content blocks, as a single answer has them; a stream of
the same is made from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.golden.cases import added_up
from tests.rig import SSE, HeaderItems, SeenRequest, pieces
from tests.rig.dialects import ARGUMENTS, FUNCTION, IMAGE, RESULT, SCHEMA
from tests.rig.fault_upstream import Chunk, Cut, Head, Json, Script, ScriptedServer

MESSAGES, MODELS = "/v1/messages", "/v1/models"
MODEL = "claude-test-1"
KEY = "key-of-the-test-provider"

Document = dict[str, Any]

JSON = {"Content-Type": "application/json"}
HELLO: list[Document] = [{"type": "text", "text": "Hello!"}]
USAGE = {"input_tokens": 12, "output_tokens": 6}


def _can(*supported: str, **nested: Any) -> Document:
    return {name: {"supported": True} for name in supported} | nested


def row(
    name: str = MODEL, *, kinds: Sequence[str] = ("adaptive", "disabled"), **fields: Any
) -> Document:
    """A model as `/v1/models` lists it; `kinds`: of thinking that it takes."""
    thinking = {"supported": bool(kinds), "types": _can(*kinds)}
    effort = {"supported": True} | _can("low", "medium", "high")
    told = _can("image_input", "structured_outputs", thinking=thinking, effort=effort)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-05-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": told,
    } | fields


def page(*rows: Document, more: bool = False) -> Document:
    """One page of the list."""
    ends = (
        {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        if rows
        else {"first_id": None, "last_id": None}
    )
    return {"data": list(rows), "has_more": more} | ends


def message(
    blocks: Sequence[Document], reason: str = "end_turn", usage: Mapping[str, Any] = USAGE
) -> Document:
    """A single answer."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": list(blocks),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": dict(usage),
    }


def events(
    blocks: Sequence[Document],
    reason: str = "end_turn",
    usage: Mapping[str, Any] = USAGE,
    *,
    size: int = 3,
) -> Iterator[Document]:
    """The events of a stream that says the same, each text in pieces of `size` characters."""
    begun = message([], usage=dict(usage) | {"output_tokens": 1}) | {"stop_reason": None}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        for delta in _deltas(block, size):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    written = {"output_tokens": usage["output_tokens"]}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": written,
    }
    yield {"type": "message_stop"}


def _empty(block: Document) -> Document:
    """A block as its start shows it."""
    empty = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {name: empty[name] if name in empty else value for name, value in block.items()}


def _deltas(block: Document, size: int) -> Iterator[Document]:
    match block["type"]:
        case "text":
            yield from (
                {"type": "text_delta", "text": piece} for piece in _cut(block["text"], size)
            )
        case "thinking":
            yield from (
                {"type": "thinking_delta", "thinking": piece}
                for piece in _cut(block["thinking"], size)
            )
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use" if block["input"]:
            written = json.dumps(block["input"], ensure_ascii=False)
            # Anthropic begins with an empty piece.
            yield from (
                {"type": "input_json_delta", "partial_json": piece}
                for piece in ["", *_cut(written, size)]
            )


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def frames(documents: Sequence[Document]) -> bytes:
    """Events as bytes."""
    return b"".join(
        b"event: %s\ndata: %s\n\n"
        % (document["type"].encode(), json.dumps(document, ensure_ascii=False).encode())
        for document in documents
    )


def streamed(
    documents: Sequence[Document], *, edges: int | None = None, cut: bool = False
) -> Script:
    """A script that sends these events; `cut`: and then closes the connection in
    the middle of the body."""
    body = [Chunk(piece) for piece in pieces(frames(list(documents)), edges)]
    return [Head(200, SSE), *body, *([Cut()] if cut else [])]


def said(
    blocks: Sequence[Document] = HELLO,
    reason: str = "end_turn",
    *,
    stream: bool,
    usage: Mapping[str, Any] = USAGE,
    **options: Any,
) -> Script:
    """A script that answers with these blocks."""
    if stream:
        return streamed(list(events(blocks, reason, usage)), **options)
    return [Json(message(blocks, reason, usage))]


def error(kind: str, text: str, **fields: Any) -> Document:
    """An error in the form of this API, whole or in a stream."""
    return {"type": "error", "error": {"type": kind, "message": text, **fields}}


def refused(status: int, kind: str, text: str, headers: HeaderItems = (), **fields: Any) -> Script:
    """A script that says no."""
    return [Json(error(kind, text, **fields) | {"request_id": "req_1"}, status, headers)]


# The matrix: cases that Ollama's lines tell, and wishes as this API has words for them.

_KINDS = {
    400: "invalid_request_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def refusal(status: int, text: str, model: str) -> tuple[int, str, str]:
    """How this API says what Ollama says in these words: status, kind and text."""
    said = {f"model '{model}' not found": f"model: {model}"}.get(text, text)
    too_long = "prompt is too long: " if "context length" in text else ""
    return status, _KINDS.get(status, "api_error"), f"{too_long}{said}"


def played(
    lines: Sequence[Document], *, stream: bool, edges: int | None = None, is_cut: bool = False
) -> Script:
    """The answer that says what these lines of Ollama's chat say."""
    *_, last = lines
    blocks, reason, usage = _told(lines)
    whole, spoken = message(blocks, reason, usage), list(events(blocks, reason, usage))
    if "error" in last:
        broken = error("api_error", last["error"])
        # Of a stream, everything before the end of the block.
        return streamed([*spoken[:-3], broken], edges=edges) if stream else [Json(broken, 500)]
    if is_cut:
        body = frames(spoken) if stream else json.dumps(whole).encode()
        return [Head(200, SSE if stream else JSON), Chunk(body[: len(body) * 2 // 3]), Cut()]
    return streamed(spoken, edges=edges) if stream else [Json(whole)]


def _told(lines: Sequence[Document]) -> tuple[list[Document], str, Document]:
    whole = added_up([line for line in lines if "error" not in line])
    said, blocks = whole["message"], list[Document]()
    if said.get("thinking"):
        blocks.append({"type": "thinking", "thinking": said["thinking"], "signature": "c2lnbmVk"})
    if said.get("content"):
        blocks.append({"type": "text", "text": said["content"]})
    for number, call in enumerate(said.get("tool_calls") or ()):
        function = call["function"]
        use = {"type": "tool_use", "id": f"toolu_{number:024}", "name": function["name"]}
        blocks.append(use | {"input": function["arguments"]})
    reason = "max_tokens" if whole.get("done_reason") == "length" else "end_turn"
    usage = {
        "input_tokens": whole.get("prompt_eval_count", 0),
        "output_tokens": whole.get("eval_count", 0),
    }
    return blocks, "tool_use" if said.get("tool_calls") else reason, usage


def wanted(seen: SeenRequest, model: str) -> Document:
    """What a request wants, by the names of `dialects.Wanted`; fails for one
    that wants it wrongly."""
    body = seen.json()
    assert body["model"] == model
    tools, form = body.get("tools") or [], (body.get("output_config") or {}).get("format")
    described = {name: FUNCTION[name] for name in ("name", "description")} | {
        "input_schema": FUNCTION["parameters"]
    }
    assert [json.dumps(tool) for tool in tools] in ([], [json.dumps(described)])
    closed = {"type": "json_schema", "schema": SCHEMA | {"additionalProperties": False}}
    assert json.dumps(form) in ("null", json.dumps(closed))
    first, *history = body["messages"]
    images = [block["source"] for block in first["content"] if block["type"] == "image"]
    assert images in ([], [{"type": "base64", "media_type": "image/png", "data": IMAGE}])
    [text] = [block["text"] for block in first["content"] if block["type"] == "text"]
    [stop] = body.get("stop_sequences") or [None]
    return {
        "text": text,
        "thinking": body.get("thinking", {}).get("type") == "adaptive",
        "tool": bool(tools),
        "called": bool(history) and _has_called(history),
        "image": bool(images),
        "schema": form is not None,
        "limit": body["max_tokens"] if body["max_tokens"] != row()["max_tokens"] else None,
        "stop": stop,
    }


def _has_called(history: Sequence[Document]) -> bool:
    called, answered = history
    assert (called["role"], answered["role"]) == ("assistant", "user")
    [use], [result] = called["content"], answered["content"]
    assert (use["type"], use["name"], json.dumps(use["input"])) == (
        "tool_use",
        FUNCTION["name"],
        json.dumps(ARGUMENTS),
    )
    assert (result["type"], result["tool_use_id"]) == ("tool_result", use["id"])
    assert result["content"] == [{"type": "text", "text": RESULT}]
    return True


class MessagesProvider(ScriptedServer):
    """Lists its models, and says hello where nothing else is scripted."""

    def __init__(self, *rows: Document) -> None:
        super().__init__()
        self.rows = rows or (row(),)

    def answer(self, request: SeenRequest) -> Script:
        """See ScriptedServer."""
        if request.path == MODELS:
            return [Json(page(*self.rows))]
        if (request.method, request.path) == ("POST", MESSAGES):
            return said(stream=bool(request.json().get("stream")))
        return refused(404, "not_found_error", "Not found")

    @property
    def asked(self) -> list[SeenRequest]:
        """Requests for messages so far."""
        return [request for request in self.requests if request.path == MESSAGES]
