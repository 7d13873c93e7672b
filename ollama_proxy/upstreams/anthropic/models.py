"""What a provider of the Messages API tells of its models: their list to hub models, and what each of them takes.

Source: the types of `GET /v1/models` in Anthropic's own client, November 2026. Servers that only speak its language
tell less, or have no such list.
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

#: Kinds of thinking that a request may name.
_KINDS = ("adaptive", "enabled", "disabled")


@dataclass(slots=True, frozen=True)
class Traits:
    """What one model can do and takes; None: nobody tells."""

    #: In Ollama's words.
    capabilities: frozenset[str] | None = None
    #: The longest answer that may be asked for, in tokens.
    most_tokens: int | None = None
    #: Kinds of `thinking` that it takes.
    thinking: frozenset[str] | None = None
    #: Levels of effort that it takes.
    efforts: frozenset[str] = frozenset()
    #: It keeps to a JSON Schema by itself.
    has_schemas: bool = False

    @property
    def is_adaptive(self) -> bool:
        """It decides by itself how long it thinks."""
        return self.thinking is not None and "adaptive" in self.thinking

    @property
    def decides_sampling(self) -> bool:
        """It refuses temperature, top_p and top_k: that came together with the end of budgets for thinking."""
        return self.thinking is not None and self.is_adaptive and "enabled" not in self.thinking

    @property
    def can_stop_thinking(self) -> bool:
        """It may be told not to think."""
        return self.thinking is None or "disabled" in self.thinking


UNKNOWN = Traits()


def decode_page(page: Mapping[str, Json]) -> tuple[list[Mapping[str, Json]], str | None]:
    """The models of one page of the list, and the id behind which the next one begins; raises UpstreamError for another
    shape."""
    rows = page.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        raise UpstreamError(detail="the list of models is of another shape")
    last = page.get("last_id")
    usable = [row for row in rows if row.get("lifecycle") != "retired"]
    return usable, last if page.get("has_more") is True and isinstance(last, str) else None


def decode_model(row: Mapping[str, Json], owner: str) -> Model:
    """A hub model."""
    context = count(row.get("max_input_tokens")) or None
    return Model(row["id"], seconds_of(row.get("created_at")), owner, decode_traits(row).capabilities, context)


def decode_traits(row: Mapping[str, Json]) -> Traits:
    """What a row says of its model."""
    most = count(row.get("max_tokens")) or None
    told = row.get("capabilities")
    if not isinstance(told, dict):
        return Traits(most_tokens=most)
    # Every model that tells of itself takes tools, so there is no word for that.
    able = {"completion", "tools"}
    able |= {"vision"} if _has(told, "image_input") else set()
    able |= {"thinking"} if _has(told, "thinking") else set()
    kinds = frozenset(kind for kind in _KINDS if _has(told, "thinking", "types", kind))
    efforts = frozenset(effort for effort in THINK_LEVELS if _has(told, "effort", effort))
    return Traits(frozenset(able), most, kinds, efforts, _has(told, "structured_outputs"))


def _has(told: Json, *path: str) -> bool:
    for name in path:
        told = told.get(name) if isinstance(told, dict) else None
    return isinstance(told, dict) and told.get("supported") is True


def traits_of(model: str, told: Mapping[str, Traits]) -> Traits:
    """What is told of a model: by its own id, or by the same with a date behind it."""
    if model in told:
        return told[model]
    dated = [name for name in told if (match := _DATED.fullmatch(name)) and match[1] == model]
    return told[max(dated)] if dated else UNKNOWN
