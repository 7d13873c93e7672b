"""Answers of the demo in the JSON of Ollama's native API, whole or by lines: chats, completions,
vectors, the one model, and requests that would change models. Nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.upstreams.demo.requests import (
    CONTEXT_LENGTH,
    FULL_NAME,
    MODEL,
    Asked,
    Refusal,
    check_model,
    check_name,
    field,
    is_demo,
    is_zero_lease,
    load_chat,
    load_generate,
    load_options,
    named_model,
)
from ollama_proxy.upstreams.demo.words import (
    DIMENSIONS,
    Piece,
    count_tokens,
    logprobs,
    say,
    unit_vector,
    vector,
)
from ollama_proxy.wire import ndjson_frame

#: Seconds between two lines of a stream, so that it is visible as one.
PAUSE_S = 0.02

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"


#: Seconds between two lines about a long job.
PROGRESS_PAUSE_S = 0.06

SIZE = 1_048_576
DIGEST = hashlib.sha256(MODEL.encode()).hexdigest()
MODIFIED_AT = "2026-01-01T00:00:00Z"
CAPABILITIES = ["completion", "tools", "thinking", "embedding", "vision"]
DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "demo",
    "families": ["demo"],
    "parameter_size": "1M",
    "quantization_level": "F16",
}
_NAMES, _FILE = (
    {"name": MODEL, "model": MODEL},
    {"size": SIZE, "digest": DIGEST, "details": DETAILS},
)
_LENGTHS = {"context_length": CONTEXT_LENGTH, "embedding_length": DIMENSIONS}
LISTED = (
    _NAMES
    | {"modified_at": MODIFIED_AT}
    | _FILE
    | {"details": DETAILS | _LENGTHS, "capabilities": CAPABILITIES}
)

_BARE_JSON = "application/json"
_NO_MANIFEST = "pull model manifest: file does not exist"


@dataclass(slots=True)
class Outcome:
    """An answer in full; its first piece is due at once, each further one
    `pause_s` seconds later."""

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
        return whole(
            head | _render_pieces((), is_chat=is_chat) | {"done": True, "done_reason": reason}
        )
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
        return whole(
            head
            | _render_pieces(said.pieces, is_chat=is_chat)
            | end
            | logprobs(said.pieces, asked.top_logprobs)
        )
    steps = [
        _render_pieces([piece], is_chat=is_chat)
        | {"done": False}
        | logprobs([piece], asked.top_logprobs)
        for piece in said.pieces
    ]
    steps.append(_render_pieces((), is_chat=is_chat) | end)
    heads = (
        {"model": asked.model, "created_at": stamp(PAUSE_S * index)} for index in range(len(steps))
    )
    return lines([each | step for each, step in zip(heads, steps, strict=True)])


def _render_pieces(pieces: Sequence[Piece], *, is_chat: bool) -> dict[str, Json]:
    """The text of a line: the message of a chat, or the response of a completion."""
    content, thinking = (
        "".join(piece.content for piece in pieces),
        "".join(piece.thinking for piece in pieces),
    )
    body: dict[str, Json] = (
        {"role": "assistant", "content": content} if is_chat else {"response": content}
    )
    if thinking:
        body["thinking"] = thinking
    if calls := [piece.call for piece in pieces if piece.call]:
        body["tool_calls"] = calls
    return {"message": body} if is_chat else body


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
    answered: dict[str, Json] = {
        "model": model,
        "embeddings": [unit_vector(text, dimensions) for text in texts],
    }
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


# The model, and requests that would change models.


def ps(_: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/ps`: the model is always loaded."""
    facts = {"expires_at": stamp(300.0), "size_vram": 0, "context_length": CONTEXT_LENGTH}
    return whole({"models": [_NAMES | _FILE | facts]})


def show(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/show`; raises Refusal, as the following do."""
    check_model(named_model(data))
    info = {
        "general.architecture": "demo",
        "general.basename": "demo",
        "general.file_type": 1,
        "general.parameter_count": 1_000_000,
        "demo.block_count": 1,
        "demo.context_length": CONTEXT_LENGTH,
        "demo.embedding_length": DIMENSIONS,
        "tokenizer.ggml.tokens": [] if field(data, "verbose", False) else None,
    }
    facts = {
        "license": "The built-in demo of ollama-proxy; no model behind it.",
        "modelfile": f"# The built-in demo of ollama-proxy\nFROM {MODEL}\n",
        "parameters": f"{'num_ctx':<30} {CONTEXT_LENGTH}",
        "template": "{{ .Prompt }}",
        "details": DETAILS,
        "model_info": info,
        "capabilities": CAPABILITIES,
        "modified_at": MODIFIED_AT,
    }
    return whole(facts)


def _progress(
    data: Mapping[str, Json], steps: Sequence[Mapping[str, Json]], error: str = ""
) -> Outcome:
    """The lines of a long job, or its end alone; `error` is how it fails once it has begun."""
    if field(data, "stream", True):
        return lines(
            [*steps, {"error": error} if error else {"status": "success"}], pause_s=PROGRESS_PAUSE_S
        )
    if error:
        return whole({"error": error}, status=500, content_type=_BARE_JSON)
    return whole({"status": "success"}, content_type=_BARE_JSON)


def pull(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/pull`."""
    name = named_model(data)
    check_name(name)
    start = {"status": "pulling manifest"}
    if not is_demo(name):
        return _progress(data, [start], _NO_MANIFEST)
    return _progress(
        data,
        [
            start,
            *_transfer("pulling"),
            {"status": "verifying sha256 digest"},
            {"status": "writing manifest"},
        ],
    )


def push(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/push`."""
    name = named_model(data)
    check_name(name)
    start = {"status": "retrieving manifest"}
    if not is_demo(name):
        return _progress(
            data, [start, {"status": "couldn't retrieve manifest"}], f"model '{name}' not found"
        )
    return _progress(data, [start, *_transfer("pushing"), {"status": "pushing manifest"}])


def _transfer(verb: str) -> list[dict[str, Json]]:
    """Ten steps of one layer; the first has nothing completed, and Ollama
    leaves out what is zero."""
    line: dict[str, Json] = {
        "status": f"{verb} {DIGEST[:12]}",
        "digest": f"sha256:{DIGEST}",
        "total": SIZE,
    }
    return [line, *(line | {"completed": SIZE * step // 10} for step in range(1, 11))]


def create(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/create`."""
    check_name(named_model(data))
    source, files = field(data, "from", ""), field(data, "files", dict[str, Json]())
    if not source and not files:
        raise Refusal(400, "neither 'from' or 'files' was specified")
    if source and not is_demo(source):
        return _progress(data, [{"status": "pulling manifest"}], _NO_MANIFEST)
    layer = f"using existing layer sha256:{DIGEST}" if source else "parsing GGUF"
    return _progress(data, [{"status": layer}, {"status": "writing manifest"}])


def copy(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/copy`."""
    check_model(field(data, "source", ""))
    check_name(field(data, "destination", ""))
    return Outcome((), content_type="")


def delete(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/delete`: always a Refusal."""
    check_model(named_model(data))
    raise Refusal(403, f"The model '{MODEL}' is built into the gateway and can't be deleted.")
