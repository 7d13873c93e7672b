"""Which Ollama server has which models, as a table of both; nothing waits long for a server
that does not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ollama_proxy.gateway import Gateway
from ollama_proxy.hub import Json
from ollama_proxy.policy import canonical
from ollama_proxy.upstreams import Node

#: Seconds for which lists are waited for; those of slower servers are shown as they were before.
LISTS_S = 0.8

#: How old a list may be that is shown without waiting, in seconds: health
#: checks fetch most of them.
RECENT_S = 15.0

#: A model that stays loaded for longer than this is pinned.
PINNED = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in the memory of a server; None: not known."""

    #: In bytes, and those of them that are on GPUs.
    size: int | None
    size_vram: int | None
    context_length: int | None
    #: ISO 8601; "" if it stays.
    until: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A model on one server, by the server's own name of it."""

    name: str
    size: int | None
    digest: str
    modified_at: str
    details: Mapping[str, Json]
    loaded: Loaded | None


@dataclass(frozen=True, slots=True)
class Box:
    """One Ollama server: `state` as in the list of upstreams, and whether its list is from now."""

    name: str
    state: str
    reason: str
    version: str
    is_fresh: bool
    #: By canonical name; empty and `is_known` False: its list has never been there.
    copies: Mapping[str, Copy] = field(default_factory=dict)
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One model, and what each server has of it."""

    name: str
    #: Its canonical name.
    key: str
    copies: Mapping[str, Copy]

    @property
    def differs(self) -> bool:
        """Whether servers have different versions of it."""
        return len({copy.digest for copy in self.copies.values()}) > 1

    @property
    def having(self) -> list[str]:
        """The servers that have it."""
        return list(self.copies)


@dataclass(frozen=True, slots=True)
class Matrix:
    """All servers and models."""

    boxes: Sequence[Box]
    rows: Sequence[Row]

    def find(self, name: str) -> Row | None:
        """A model by any spelling of its name; None: no server has it."""
        wanted = canonical(name)
        return next((row for row in self.rows if row.key == wanted), None)


def read_matrix(gateway: Gateway, wait_s: float = LISTS_S) -> Matrix:
    """What the servers have now, and those that do not answer in time had before. `wait_s` 0: what
    is known, while newer lists are fetched."""
    fleet = gateway.fleet
    asked_at = gateway.clock.monotonic()
    # Only health checks contact a server that is known to be down.
    gateway.clock.join(
        [fleet.learn(node) for node in fleet.managed_nodes if node.connection.is_closed], wait_s
    )
    oldest = asked_at if wait_s else asked_at - RECENT_S
    boxes = [describe_box(node, oldest) for node in fleet.managed_nodes]
    names: dict[str, str] = {}
    for box in boxes:
        for key, copy in box.copies.items():
            names.setdefault(key, copy.name)
    rows = [
        Row(name, key, {box.name: box.copies[key] for box in boxes if key in box.copies})
        for key, name in sorted(names.items())
    ]
    return Matrix(boxes, rows)


def list_other_models(gateway: Gateway) -> dict[str, list[str]]:
    """The models of each upstream that is no Ollama server, as they are known now."""
    fleet = gateway.fleet
    others = [node for node in fleet.nodes if node not in fleet.managed_nodes]
    listed = {node.name: node.models.listing for node in others}
    return {
        name: sorted(each for each, _ in listing.models.values())
        for name, listing in listed.items()
        if listing
    }


def describe_box(node: Node, oldest: float) -> Box:
    """A server with its models. `oldest`: monotonic time; an older list is not from now."""
    state, listing = node.state, node.models.listing
    loaded = {canonical(str(row.get("name"))): row for row in listing.loaded} if listing else {}
    copies: dict[str, Copy] = {}
    for own_name, model in listing.models.values() if listing else ():
        key = canonical(own_name)
        copies[key] = describe_copy(own_name, model.row or {}, loaded.get(key))
    is_fresh = node.models.listed_at >= oldest
    reason, version = (state.reason, state.version) if state else ("", "")
    return Box(
        node.name, node.condition, reason, version, is_fresh, copies, is_known=listing is not None
    )


def describe_copy(name: str, row: Mapping[str, Json], loaded: Mapping[str, Json] | None) -> Copy:
    """A model by its rows in Ollama's lists."""
    details = row.get("details")
    digest = str(row.get("digest") or "").removeprefix("sha256:")
    return Copy(
        name=name,
        size=_count(row.get("size")),
        digest=digest[:64],
        modified_at=_time(row.get("modified_at")),
        details=details if isinstance(details, dict) else {},
        loaded=None if loaded is None else describe_loaded(loaded),
    )


def describe_loaded(row: Mapping[str, Json]) -> Loaded:
    """A loaded model by its row."""
    until = _time(row.get("expires_at"))
    if until and datetime.fromisoformat(until) > datetime.now(UTC) + PINNED:
        until = ""
    return Loaded(
        _count(row.get("size")),
        _count(row.get("size_vram")),
        _count(row.get("context_length")),
        until,
    )


def _count(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _time(value: Json) -> str:
    """A time with its zone; "" for anything else."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return ""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
