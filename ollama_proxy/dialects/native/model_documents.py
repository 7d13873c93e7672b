"""Render lists and descriptions of models as Ollama does, also for models that
no Ollama server runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import orjson

from ollama_proxy.hub import Json, Model
from ollama_proxy.wire import ndjson_frame

Row = Mapping[str, Json]

#: The time of a model whose age is unknown, in seconds since 1970: lists keep their order.
MADE_AT = 1_767_225_600

#: The latest time of a model, in 2100: some servers report times that no calendar has.
MADE_BY = 4_102_444_800

#: The capabilities of a model that no server describes. Editors show only models that call tools,
#: and every current service has such models.
CAPABILITIES = ("completion", "tools")

#: The context in tokens if it is unknown: clients cut their prompts to it.
CONTEXT_LENGTH = 32_768

#: In Ollama's order.
_ORDER = ("completion", "embedding", "tools", "insert", "vision", "thinking", "audio")


def add_tag(name: str) -> str:
    """Return the name as lists show it, with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def render_tags(models: Iterable[Model]) -> bytes:
    """Render the document of /api/tags, newest first, without duplicates of models that
    several servers have."""
    rows: dict[str, Row] = {}
    for model in models:
        name = add_tag(model.name)
        if model.row is not None:
            row = {**model.row, "name": name, "model": name}
        else:
            row = {
                "name": name,
                "model": name,
                "modified_at": _stamp(model.modified_at),
                "size": 0,
                "digest": hashlib.sha256(f"{model.owned_by} {name}".encode()).hexdigest(),
                "details": _details(model),
                "capabilities": _capabilities(model),
            }
        rows.setdefault(name.lower(), row)
    return orjson.dumps({"models": _latest_first(rows.values(), "modified_at")})


def _latest_first(rows: Iterable[Row], field: str) -> list[Row]:
    def seconds(row: Row) -> float:
        """Return the time in the field, 0 if it has none."""
        try:
            return datetime.fromisoformat(str(row.get(field))).timestamp()
        except ValueError:
            return 0.0

    return sorted(rows, key=seconds, reverse=True)


def _stamp(seconds: int) -> str:
    return (
        datetime.fromtimestamp(min(seconds or MADE_AT, MADE_BY), UTC)
        .isoformat()
        .replace("+00:00", "Z")
    )


def _details(model: Model) -> dict[str, Json]:
    details: dict[str, Json] = {
        "parent_model": "",
        "format": "",
        "family": model.owned_by,
        "families": [model.owned_by],
        "parameter_size": "",
        "quantization_level": "",
    }
    lengths = {"context_length": model.context_length, "embedding_length": model.embedding_length}
    return details | {name: length for name, length in lengths.items() if length}


def _capabilities(model: Model) -> list[str]:
    able = CAPABILITIES if model.capabilities is None else model.capabilities
    return sorted(
        able, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
    )


def render_show(model: Model) -> bytes:
    """Render the document of /api/show for a model of a provider. Clients fail
    without `model_info`."""
    family = model.owned_by
    info = {
        "general.architecture": family,
        "general.basename": model.name,
        "general.parameter_count": 0,
        "general.quantization_version": 0,
        f"{family}.context_length": model.context_length or CONTEXT_LENGTH,
    }
    return orjson.dumps(
        {
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _details(model),
            "model_info": info,
            "capabilities": _capabilities(model),
            "modified_at": _stamp(model.modified_at),
        }
    )


def render_ps(listed: Iterable[tuple[str, Sequence[Row]]], *, named: bool) -> bytes:
    """Render the document of /api/ps from rows by server, longest lease first. `named`: rows
    have their server's name."""
    rows = [{**row, "box": box} if named else row for box, loaded in listed for row in loaded]
    return orjson.dumps({"models": _latest_first(rows, "expires_at")})


def render_pulled(*, stream: bool) -> bytes:
    """Render the answer of /api/pull for a model that a provider runs: success, as there
    is nothing to download."""
    if not stream:
        return orjson.dumps({"status": "success"})
    return b"".join(ndjson_frame({"status": text}) for text in ("pulling manifest", "success"))
