"""The demo's one model: how it is listed and described, and the requests that would change models. Nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ollama_proxy.hub import Json
from ollama_proxy.upstreams.demo.answers import Outcome, lines, stamp, whole
from ollama_proxy.upstreams.demo.requests import (
    CONTEXT_LENGTH,
    MODEL,
    Refusal,
    check_model,
    check_name,
    field,
    is_demo,
    named_model,
)
from ollama_proxy.upstreams.demo.words import DIMENSIONS

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
_NAMES, _FILE = {"name": MODEL, "model": MODEL}, {"size": SIZE, "digest": DIGEST, "details": DETAILS}
_LENGTHS = {"context_length": CONTEXT_LENGTH, "embedding_length": DIMENSIONS}
LISTED = _NAMES | {"modified_at": MODIFIED_AT} | _FILE | {"details": DETAILS | _LENGTHS, "capabilities": CAPABILITIES}

_BARE_JSON = "application/json"
_NO_MANIFEST = "pull model manifest: file does not exist"


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


def _progress(data: Mapping[str, Json], steps: Sequence[Mapping[str, Json]], error: str = "") -> Outcome:
    """The lines of a long job, or its end alone; `error` is how it fails once it has begun."""
    if field(data, "stream", True):
        return lines([*steps, {"error": error} if error else {"status": "success"}], pause_s=PROGRESS_PAUSE_S)
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
        [start, *_transfer("pulling"), {"status": "verifying sha256 digest"}, {"status": "writing manifest"}],
    )


def push(data: Mapping[str, Json]) -> Outcome:
    """The answer of `/api/push`."""
    name = named_model(data)
    check_name(name)
    start = {"status": "retrieving manifest"}
    if not is_demo(name):
        return _progress(data, [start, {"status": "couldn't retrieve manifest"}], f"model '{name}' not found")
    return _progress(data, [start, *_transfer("pushing"), {"status": "pushing manifest"}])


def _transfer(verb: str) -> list[dict[str, Json]]:
    """Ten steps of one layer; the first has nothing completed, and Ollama leaves out what is zero."""
    line: dict[str, Json] = {"status": f"{verb} {DIGEST[:12]}", "digest": f"sha256:{DIGEST}", "total": SIZE}
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
    """The answer of `/api/delete`."""
    check_model(named_model(data))
    return Outcome((), content_type="")
