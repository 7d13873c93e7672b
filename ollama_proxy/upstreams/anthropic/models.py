"""The list of models of the Messages API: as hub models, and the traits of each model.

Source: the types of `GET /v1/models` in Anthropic's own client, November 2026. Other servers of
this API list less, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Json, Model
from ollama_proxy.settings import THINK_LEVELS
from ollama_proxy.upstreams.ollama.codec import count, seconds_of

_DATED = re.compile(r"(.+)-\d{8}")


@dataclass(slots=True, frozen=True)
class Traits:
    """What one model can do, and what it accepts; None: unknown."""

    #: In Ollama's terms.
    capabilities: frozenset[str] | None = None
    #: The longest answer that may be requested, in tokens.
    most_tokens: int | None = None
    #: Whether the server lists the types of `thinking` that it accepts.
    lists_thinking: bool = False
    #: Whether it decides itself how long it thinks.
    is_adaptive: bool = False
    #: Whether it refuses temperature, top_p and top_k, as the models without
    #: budgets for thinking do.
    decides_sampling: bool = False
    #: Whether thinking can be turned off.
    can_stop_thinking: bool = True
    #: Levels of effort that it accepts.
    efforts: frozenset[str] = frozenset()
    #: Whether it has a field for a JSON Schema.
    has_schemas: bool = False


UNKNOWN = Traits()


def decode_page(page: Mapping[str, Json]) -> tuple[list[Mapping[str, Json]], str | None]:
    """The models of one page of the list, and the id after which the next page begins; raises
    UpstreamError for a malformed page."""
    rows = page.get("data")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows
    ):
        raise UpstreamError(detail="the list of models is of another shape")
    last = page.get("last_id")
    usable = [row for row in rows if row.get("lifecycle") != "retired"]
    return usable, last if page.get("has_more") is True and isinstance(last, str) else None


def decode_model(row: Mapping[str, Json], owner: str) -> Model:
    """The hub model of a row."""
    context = count(row.get("max_input_tokens")) or None
    return Model(
        row["id"],
        seconds_of(row.get("created_at")),
        owner,
        decode_traits(row).capabilities,
        context,
    )


def decode_traits(row: Mapping[str, Json]) -> Traits:
    """The traits of the model of a row."""
    most = count(row.get("max_tokens")) or None
    told = row.get("capabilities")
    if not isinstance(told, dict):
        return Traits(most_tokens=most)
    # Every model that lists capabilities takes tools, so there is no capability for that.
    able = {"completion", "tools"}
    able |= {"vision"} if _has(told, "image_input") else set()
    able |= {"thinking"} if _has(told, "thinking") else set()
    efforts = frozenset(effort for effort in THINK_LEVELS if _has(told, "effort", effort))
    is_adaptive = _has(told, "thinking", "types", "adaptive")
    return Traits(
        frozenset(able),
        most,
        lists_thinking=True,
        is_adaptive=is_adaptive,
        decides_sampling=is_adaptive and not _has(told, "thinking", "types", "enabled"),
        can_stop_thinking=_has(told, "thinking", "types", "disabled"),
        efforts=efforts,
        has_schemas=_has(told, "structured_outputs"),
    )


def _has(told: Json, *path: str) -> bool:
    for name in path:
        told = told.get(name) if isinstance(told, dict) else None
    return isinstance(told, dict) and told.get("supported") is True


def find_traits(model: str, told: Mapping[str, Traits]) -> Traits:
    """The traits of a model, by its id or by the same id with a date after it."""
    if model in told:
        return told[model]
    dated = [name for name in told if (match := _DATED.fullmatch(name)) and match[1] == model]
    return told[max(dated)] if dated else UNKNOWN
