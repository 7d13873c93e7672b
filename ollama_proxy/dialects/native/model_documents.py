"""Lists of models and what is known of one, as Ollama shows them: also for models that no Ollama runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import orjson

from ollama_proxy.hub import Json, Model
from ollama_proxy.wire import ndjson_frame

Row = Mapping[str, Json]

#: When a model was made that nobody tells the age of, in seconds since 1970: lists stay in their order.
MADE_AT = 1_767_225_600

#: No model is from later than 2100; some servers tell of a time that is none, and calendars end.
MADE_BY = 4_102_444_800

#: What is believed of a model that nobody describes. Editors show only what calls tools, and every service of today
#: has models that do.
CAPABILITIES = ("completion", "tools")

#: Tokens of context, where nobody tells: clients cut what they send to it.
CONTEXT_LENGTH = 32_768

#: As Ollama orders them.
_ORDER = ("completion", "embedding", "tools", "insert", "vision", "thinking", "audio")


def tagged(name: str) -> str:
    """The name as lists show it: with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def render_tags(models: Iterable[Model]) -> bytes:
    """The document of /api/tags, newest first. A model that several servers have is there once."""
    rows: dict[str, Row] = {}
    for model in models:
        row = tags_row(model)
        rows.setdefault(row["name"].lower(), row)
    return orjson.dumps({"models": _latest_first(rows.values(), "modified_at")})


def tags_row(model: Model) -> dict[str, Json]:
    """A row of /api/tags: Ollama's own under the name that the team uses, or one that is like it."""
    name = tagged(model.name)
    if model.row is not None:
        return {**model.row, "name": name, "model": name}
    return {
        "name": name,
        "model": name,
        "modified_at": _stamp(model.modified_at),
        "size": 0,
        "digest": hashlib.sha256(f"{model.owned_by} {name}".encode()).hexdigest(),
        "details": _details(model),
        "capabilities": _capabilities(model),
    }


def _latest_first(rows: Iterable[Row], field: str) -> list[Row]:
    return sorted(rows, key=lambda row: _moment(row.get(field)), reverse=True)


def _moment(stamp: Json) -> float:
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return 0.0


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(min(seconds or MADE_AT, MADE_BY), UTC).isoformat().replace("+00:00", "Z")


def _details(model: Model) -> dict[str, Json]:
    details: dict[str, Json] = {
        "parent_model": "",
        "format": "",
        "family": model.owned_by,
        "families": [model.owned_by],
        "parameter_size": "",
        "quantization_level": "",
    }
    return details | ({"context_length": model.context_length} if model.context_length else {})


def _capabilities(model: Model) -> list[str]:
    able = CAPABILITIES if model.capabilities is None else model.capabilities
    return sorted(able, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def render_show(model: Model) -> bytes:
    """The document of /api/show for a model of a provider. `model_info` is always there: clients fail without it."""
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
    """The document of /api/ps from the rows of every server by its name, longest lease first. `named`: rows say which
    server it is."""
    rows = [{**row, "box": box} if named else row for box, loaded in listed for row in loaded]
    return orjson.dumps({"models": _latest_first(rows, "expires_at")})


def pulled(*, stream: bool) -> bytes:
    """What /api/pull says of a model that a provider runs: there is nothing to fetch."""
    if not stream:
        return orjson.dumps({"status": "success"})
    return b"".join(ndjson_frame({"status": text}) for text in ("pulling manifest", "success"))
