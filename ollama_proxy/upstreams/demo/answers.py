"""Answers of the demo model in the JSON of Ollama's native API: chats, completions, vectors; whole or by lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from ollama_proxy.upstreams.demo.words import Piece, Said, count_tokens, logprobs, say, unit_vector, vector
from ollama_proxy.wire import ndjson_frame

#: Seconds between two lines of a stream, so that it is seen to be one.
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


def empty(status: int) -> Outcome:
    """An answer without a body, and so without a type."""
    return Outcome((), "", status)


def stamp(in_s: float = 0.0) -> str:
    """RFC 3339, some seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=in_s)).isoformat().replace("+00:00", "Z")


Draw = Callable[[Sequence[Piece]], dict[str, Json]]


def chat(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/chat`; raises Refusal, as the following do."""
    asked = load_chat(data)
    check_model(asked.model)
    return _answered(asked, _draw_message, {})


def generate(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/generate`."""
    asked = load_generate(data)
    check_model(asked.model)
    raw = field(data, "raw", False)
    if raw and any(data.get(name) for name in ("template", "system", "context")):
        raise Refusal(400, "raw mode does not support template, system, or context")
    if data.get("suffix") and asked.messages:
        raise Refusal(400, f"{FULL_NAME} does not support insert")
    return _answered(asked, _draw_response, {} if raw else {"context": [1, 2, 3]})


def _draw_message(pieces: Sequence[Piece]) -> dict[str, Json]:
    message: dict[str, Json] = {"role": "assistant", "content": "".join(piece.content for piece in pieces)}
    if thinking := "".join(piece.thinking for piece in pieces):
        message["thinking"] = thinking
    if calls := [piece.call for piece in pieces if piece.call]:
        message["tool_calls"] = calls
    return {"message": message}


def _draw_response(pieces: Sequence[Piece]) -> dict[str, Json]:
    thinking = "".join(piece.thinking for piece in pieces)
    return {"response": "".join(piece.content for piece in pieces)} | ({"thinking": thinking} if thinking else {})


def _answered(asked: Asked, draw: Draw, last: Mapping[str, Json]) -> Outcome:
    """The answer as `asked` wants it; `last` is what its last line has besides."""
    head = {"model": asked.model, "created_at": stamp()}
    if not asked.messages:
        # One object even where a stream was asked for.
        return whole(head | draw(()) | {"done": True, "done_reason": "unload" if asked.is_unload else "load"})
    said = say(asked)
    end = {"done": True, "done_reason": said.done_reason, **last, **_metrics(said)}
    if not asked.stream:
        return whole(head | draw(said.pieces) | end | _logprobs(asked, said.pieces))
    steps = [draw([piece]) | {"done": False} | _logprobs(asked, [piece]) for piece in said.pieces]
    heads = ({"model": asked.model, "created_at": stamp(PAUSE_S * index)} for index in range(len(steps) + 1))
    return lines([each | step for each, step in zip(heads, [*steps, draw(()) | end], strict=True)])


def _logprobs(asked: Asked, pieces: Sequence[Piece]) -> dict[str, Json]:
    rows = [] if asked.top_logprobs is None else logprobs(pieces, asked.top_logprobs)
    return {"logprobs": rows} if rows else {}


def _metrics(said: Said) -> dict[str, Json]:
    """Durations in nanoseconds, the same for every answer; Ollama leaves out what is zero."""
    metrics = {
        "total_duration": 60_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": said.prompt_eval_count,
        "prompt_eval_duration": 9_000_000,
        "eval_count": said.eval_count,
        "eval_duration": 50_000_000,
    }
    return {name: value for name, value in metrics.items() if value}


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
    """The model of a request for vectors, and a check of what has no effect here; raises Refusal."""
    load_options(data)
    is_zero_lease(data)
    model = field(data, "model", "")
    check_model(model)
    return model
