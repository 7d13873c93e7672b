"""Answers of the demo model in the JSON of Ollama's native API: chats, completions, vectors; whole or by lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.upstreams.demo.requests import (
    CONTEXT_LENGTH,
    FULL_NAME,
    Asked,
    Refusal,
    check_model,
    field,
    is_zero_lease,
    load_chat,
    load_generate,
    load_options,
)
from ollama_proxy.upstreams.demo.words import Piece, count_tokens, logprobs, say, unit_vector, vector
from ollama_proxy.wire import ndjson_frame

#: Seconds between two lines of a stream, so that it is visible as one.
PAUSE_S = 0.02

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"


@dataclass(slots=True)
class Outcome:
    """An answer in full; its first piece is due at once, each further one `pause_s` seconds later."""

    pieces: Sequence[bytes]
    content_type: str = JSON
    status: int = 200
    pause_s: float = 0.0


def whole(document: Mapping[str, Json], *, status: int = 200, content_type: str = JSON) -> Outcome:
    """A single JSON object."""
    return Outcome([orjson.dumps(document)], content_type, status)


def lines(documents: Sequence[Mapping[str, Json]], *, pause_s: float = PAUSE_S) -> Outcome:
    """A stream of JSON objects."""
    return Outcome([ndjson_frame(document) for document in documents], NDJSON, pause_s=pause_s)


def stamp(in_s: float = 0.0) -> str:
    """RFC 3339, some seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=in_s)).isoformat().replace("+00:00", "Z")


def chat(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/chat`; raises Refusal, as the following do."""
    asked = load_chat(data)
    check_model(asked.model)
    return _render(asked, {}, is_chat=True)


def generate(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/generate`."""
    asked = load_generate(data)
    check_model(asked.model)
    raw = field(data, "raw", False)
    if raw and any(data.get(name) for name in ("template", "system", "context")):
        raise Refusal(400, "raw mode does not support template, system, or context")
    if data.get("suffix") and asked.messages:
        raise Refusal(400, f"{FULL_NAME} does not support insert")
    return _render(asked, {} if raw else {"context": [1, 2, 3]}, is_chat=False)


def _render(asked: Asked, last: Mapping[str, Json], *, is_chat: bool) -> Outcome:
    """The answer, as one object or as a stream; `last`: fields that only its last line has."""
    head = {"model": asked.model, "created_at": stamp()}
    if not asked.messages:
        # One object even if a stream was requested.
        reason = "unload" if asked.is_unload else "load"
        return whole(head | _render_pieces((), is_chat=is_chat) | {"done": True, "done_reason": reason})
    said = say(asked)
    end: dict[str, Json] = {
        "done": True,
        "done_reason": said.done_reason,
        **last,
        # Durations in nanoseconds, the same for every answer.
        "total_duration": 60_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": said.prompt_eval_count,
        "prompt_eval_duration": 9_000_000,
        "eval_count": said.eval_count,
        "eval_duration": 50_000_000,
    }
    if not asked.stream:
        return whole(head | _render_pieces(said.pieces, is_chat=is_chat) | end | _logprobs(asked, said.pieces))
    steps = [
        _render_pieces([piece], is_chat=is_chat) | {"done": False} | _logprobs(asked, [piece]) for piece in said.pieces
    ]
    steps.append(_render_pieces((), is_chat=is_chat) | end)
    heads = ({"model": asked.model, "created_at": stamp(PAUSE_S * index)} for index in range(len(steps)))
    return lines([each | step for each, step in zip(heads, steps, strict=True)])


def _render_pieces(pieces: Sequence[Piece], *, is_chat: bool) -> dict[str, Json]:
    """The text of a line: the message of a chat, or the response of a completion."""
    content, thinking = "".join(piece.content for piece in pieces), "".join(piece.thinking for piece in pieces)
    body: dict[str, Json] = {"role": "assistant", "content": content} if is_chat else {"response": content}
    if thinking:
        body["thinking"] = thinking
    if calls := [piece.call for piece in pieces if piece.call]:
        body["tool_calls"] = calls
    return {"message": body} if is_chat else body


def _logprobs(asked: Asked, pieces: Sequence[Piece]) -> dict[str, Json]:
    rows = [] if asked.top_logprobs is None else logprobs(pieces, asked.top_logprobs)
    return {"logprobs": rows} if rows else {}


def embed(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/embed`: vectors of length 1."""
    texts = data.get("input", "")
    if isinstance(texts, str):
        texts = [texts] if texts else []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "invalid input type")
    dimensions, truncate = field(data, "dimensions", 0), field(data, "truncate", True)
    model = _load_model(data)
    if not truncate and any(count_tokens(text) > CONTEXT_LENGTH for text in texts):
        raise Refusal(400, "the input length exceeds the context length")
    answered: dict[str, Json] = {"model": model, "embeddings": [unit_vector(text, dimensions) for text in texts]}
    if texts:
        answered |= {"total_duration": 2_000_000, "load_duration": 1_000_000}
    if count := sum(map(count_tokens, texts)):
        answered["prompt_eval_count"] = count
    return whole(answered)


def embeddings(data: Mapping[str, Json]) -> Outcome:
    """The answer of the older `/api/embeddings`: one vector as it is."""
    prompt = field(data, "prompt", "")
    _load_model(data)
    return whole({"embedding": vector(prompt) if prompt else []})


def _load_model(data: Mapping[str, Json]) -> str:
    """The model of a request for vectors, with its other fields checked; raises Refusal."""
    load_options(data)
    is_zero_lease(data)
    model = field(data, "model", "")
    check_model(model)
    return model
