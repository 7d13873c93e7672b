"""One upstream in the fleet: how busy it is, what it has, and whether it can be used."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeVar

from ollama_proxy.errors import (
    GatewayError,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.hub import Json, Model
from ollama_proxy.policy import canonical
from ollama_proxy.settings import PRESETS, Timeouts, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.bounded_cache import BoundedCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.breaker import Breaker

V = TypeVar("V")

#: Failures in a row: of reaching it at all, and of its answers with one model.
UNREACHED_AT_MOST, FAILED_AT_MOST = 4, 5

#: A provider's list is believed for so much longer than that of a box, in seconds.
PROVIDER_LIST_S = 60.0

#: A model that was asked for this long ago is loaded, or is being loaded, in seconds.
WARM_S = 120.0

#: Requests in flight, for each unit of weight, above which another box may as well load the model too.
SATURATED_AT = 4

#: Breakers and times of models that are kept at most, and bytes of each.
MOST_MODELS, MOST_BYTES = 1000, 1 << 20

#: A connection that is refused sooner costs a caller nothing, in seconds.
QUICK_S = 0.1

#: Protocols of servers of Ollama's kind.
OLLAMA_PROTOCOLS = ("ollama", "demo")

#: Statuses that only say that it is busy.
BUSY = frozenset({429, 503, 529})


@dataclass(slots=True, frozen=True)
class State:
    """What the last check found; `reason` is for the operator."""

    usable: bool
    version: str = ""
    reason: str = ""
    #: It has answered, whatever it said.
    reached: bool = True
    #: It took no connection, and said so soon.
    refused: bool = False


@dataclass(slots=True, frozen=True)
class Listing:
    """What an upstream has: by the canonical form of the name that clients use, its own name and what is known."""

    models: Mapping[str, tuple[str, Model]] = field(default_factory=dict)
    #: Rows of Ollama's `/api/ps`.
    loaded: Sequence[Mapping[str, Json]] = ()


class Node:
    """See the module."""

    def __init__(self, declared: UpstreamSettings, upstream: Upstream) -> None:
        self.declared = declared
        #: Its name in the configuration, and whether it is a server of Ollama's kind, and no provider. Other settings
        #: for the same server change neither.
        self.name, self.is_ollama_node = declared.name, declared.protocol in OLLAMA_PROTOCOLS
        self.upstream = upstream
        self.in_flight = 0
        #: Monotonic time of its last request.
        self.asked_at = 0.0
        #: Whether anything comes back from it at all.
        self.connection = Breaker(UNREACHED_AT_MOST)
        #: It was not reached the last time, but said so soon.
        self._is_quick = False
        self._failing = BoundedCache[str, Breaker](MOST_MODELS, MOST_BYTES)
        self._warm = BoundedCache[str, float](MOST_MODELS, MOST_BYTES)
        #: What the last check found; None: none yet.
        self.state: State | None = None
        self.listing: Listing | None = None
        #: Monotonic time of the last list that it gave.
        self.listed_at = -inf
        #: Of the last time that it would give none.
        self._untold_at = -inf
        self._loaded: frozenset[str] = frozenset()
        #: Counts up whenever it has other models than before.
        self.changes = 0
        self.configure(declared)

    @property
    def refuses(self) -> bool:
        """Whether it answers, but not as an Ollama server that can be used from here."""
        return self.state is not None and self.state.reached and not self.state.usable

    def takes(self, name: str, *, alone: bool) -> bool:
        """Whether a name may be one of its models although no list has it, and no upstream stands in front of it. Where
        it leads to one address, and is not `alone`, names must be in LiteLLM's form: others are mistyped."""
        is_open = alone or self.declared.base_url == PRESETS[self.declared.kind].base_url or "/" in name
        return self.upstream.takes_any_model and is_open

    def configure(self, declared: UpstreamSettings) -> None:
        """Other settings for the same server; what was learnt of it stays."""
        if self.listing is None or declared.models != self.declared.models:
            self.forget_list()
            # A provider may have no list to show; what is configured is there.
            known = {} if self.is_ollama_node else declared.models
            self.listing = Listing(_configured(known, (), declared.name)) if known else None
            self.changes += 1
        self.declared = declared
        #: What it takes, if it speaks OpenAI's API.
        self.profile = declared.spoken

    def timeouts(self, general: Timeouts) -> Timeouts:
        """The limits that count for it: its own before the general ones."""
        return general.override(self.declared.timeouts) if self.declared.timeouts else general

    # What it has.

    def learn(self, call: Call) -> None:
        """Asks for its models. Raises GatewayError."""
        try:
            listed, loaded = self.upstream.models(call), tuple(self.upstream.loaded(call))
        except GatewayError:
            self._untold_at = time.monotonic()
            raise
        known = {canonical(model.name): (model.name, model) for model in listed}
        if self.declared.models:
            known = _configured(self.declared.models, listed, self.name, only_listed=self.is_ollama_node)
        if self.listing is None or _names(self.listing) != _names(Listing(known)):
            self.changes += 1
        self.listing, self.listed_at = Listing(known, loaded), time.monotonic()
        self._loaded = frozenset(canonical(str(row.get("name"))) for row in loaded)

    def forget_list(self) -> None:
        """Its models may have changed: whoever needs its list asks for it anew."""
        self.listed_at = -inf

    def is_list_older(self, than: float) -> bool:
        """Whether its list is older than this monotonic time; those of providers change rarely, and what is configured
        needs no asking."""
        if self.declared.drain:
            return False
        if not self.is_ollama_node:
            than = -inf if self.listing and self.declared.models else than - PROVIDER_LIST_S
        return self.listed_at < than

    def tells(self, now: float) -> bool:
        """Whether it is worth asking for its list: some providers have none to show."""
        return self.is_ollama_node or self._untold_at < now - PROVIDER_LIST_S

    def upstream_model(self, name: str) -> str | None:
        """What it calls the model that clients know by this canonical name; None where it has none."""
        found = self.listing.models.get(name) if self.listing else None
        return found[0] if found else None

    def is_warm(self, name: str) -> bool:
        """Whether this canonical model answers without being loaded first, and has room for one more."""
        if self.in_flight >= SATURATED_AT * self.declared.weight:
            return False
        if self.declared.protocol != "ollama" or name in self._loaded:
            return True
        return (self._warm.get(name) or 0.0) > time.monotonic()

    # Requests.

    def load(self) -> float:
        """Requests in flight with the next one, for its weight; more while it recovers."""
        return (self.in_flight + 1) / (self.declared.weight * self.connection.share())

    def allows(self) -> bool:
        """Whether a new request may go there."""
        return not self.declared.drain and self.connection.allows()

    @property
    def refuses_at_once(self) -> bool:
        """Whether asking it although it is down costs next to nothing, and may find it back."""
        return self._is_quick and not self.declared.drain

    def is_failing(self, name: str) -> bool:
        """Whether it was not reached the last time, its last check found it of no use, or it has failed with this model
        again and again; then one request may try once in a while."""
        breaker = self._failing.get(name)
        is_useless = self.state is not None and not self.state.usable
        return is_useless or self.connection.is_suspect or (breaker is not None and not breaker.allows())

    def begin(self, name: str) -> Slot:
        """A slot for one request to a canonical model."""
        self.in_flight += 1
        self.asked_at = time.monotonic()
        self.connection.begin()
        if (breaker := self._failing.get(name)) is not None:
            breaker.begin()
        self._warm.put(name, self.asked_at + WARM_S)
        return Slot(self, name)

    def succeeded(self, name: str) -> None:
        """It has answered a request to a model."""
        self.connection.succeeded()
        self._failing.drop(name)

    def failed(self, name: str, error: GatewayError) -> None:
        """It has failed with a request to a model; what only says that it is busy, or that the request is at fault,
        counts as an answer. Silence is none, but a model may take its time: the checks find out."""
        if isinstance(error, UpstreamConnect):
            self._is_quick = error.took_s < QUICK_S
            self.connection.failed()
            return
        if not isinstance(error, UpstreamCut | UpstreamTimeout):
            self.connection.succeeded()
        if is_fault(error):
            self.record_model_failure(name)

    def lost(self, *, quickly: bool) -> None:
        """A check did not reach it; `quickly`: see refuses_at_once."""
        self._is_quick = quickly
        self.connection.trip()

    def record_model_failure(self, name: str) -> None:
        """An answer that should have been another one."""
        breaker = self._failing.get(name)
        if breaker is None:
            breaker = Breaker(FAILED_AT_MOST)
            self._failing.put(name, breaker)
        breaker.failed()

    @property
    def condition(self) -> str:
        """`draining`, `down`, `half-open`, `up` or, before it was ever asked, `unknown`."""
        if self.declared.drain:
            return "draining"
        if not self.connection.is_closed:
            return {"open": "down", "half-open": "half-open"}[self.connection.state]
        if self.state is None:
            return "unknown"
        return "up" if self.state.usable else "down"

    def failing_models(self) -> list[str]:
        """Models that it fails with, by their canonical names."""
        return [name for name, breaker in self._failing.items() if not breaker.is_closed]


class Slot:
    """A request's slot on a node, released exactly once."""

    __slots__ = ("_is_held", "model", "node")

    def __init__(self, node: Node, model: str) -> None:
        self.node, self.model = node, model
        self._is_held = True

    def release(self) -> bool:
        """Releases it; false if that was done before."""
        was_held, self._is_held = self._is_held, False
        if was_held:
            self.node.in_flight -= 1
        return was_held


def is_fault(error: GatewayError) -> bool:
    """Whether an error says that the upstream, not the request, is at fault."""
    if isinstance(error, UpstreamAuthError) or error.status in BUSY:
        return False
    return isinstance(error, UpstreamError) and (not isinstance(error, UpstreamRefused) or error.status >= 500)


def _names(listing: Listing) -> dict[str, str]:
    return {name: upstream_model for name, (upstream_model, _) in listing.models.items()}


def _configured(
    models: Mapping[str, UpstreamModel], listed: Iterable[Model], owner: str, *, only_listed: bool = False
) -> dict[str, tuple[str, Model]]:
    """The models that the configuration names, with what the upstream says of them."""
    told = {canonical(model.name): model for model in listed}
    known = {}
    for name, configured in models.items():
        model = told.get(canonical(configured.id))
        if model is None and only_listed:
            continue
        model = model or Model(configured.id, 0, owner)
        described = replace(
            model,
            name=name,
            capabilities=frozenset(configured.capabilities) or model.capabilities,
            context_length=configured.context_length or model.context_length,
            row=None if model.row is None else {**model.row, "name": name, "model": name},
        )
        known[canonical(name)] = (configured.id, described)
    return known
