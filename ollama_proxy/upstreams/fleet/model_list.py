"""What one upstream has: its models by the names that clients use, and how
old that knowledge is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Json, Model
from ollama_proxy.policy import canonical
from ollama_proxy.settings import UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.call import Call

#: Protocols of servers of Ollama's kind.
OLLAMA_PROTOCOLS = ("ollama", "demo")

#: A provider's list stays valid for this much longer than an Ollama server's, in seconds.
PROVIDER_LIST_S = 60.0


@dataclass(slots=True, frozen=True)
class Listing:
    """The models by the canonical form of the name that clients use, each with the upstream's
    name and its details."""

    models: Mapping[str, tuple[str, Model]] = field(default_factory=dict)
    #: Rows of Ollama's `/api/ps`.
    loaded: Sequence[Mapping[str, Json]] = ()


class ModelList:
    """The list of one upstream's models. It is never fetched by itself; see
    Fleet.refresh and Health."""

    def __init__(self, declared: UpstreamSettings, upstream: Upstream) -> None:
        self._declared, self._upstream = declared, upstream
        self._is_ollama_node = declared.protocol in OLLAMA_PROTOCOLS
        #: None: not fetched yet, and not configured.
        self.listing: Listing | None = None
        #: Canonical names of the models that are loaded.
        self.loaded: frozenset[str] = frozenset()
        #: Monotonic time of the last list.
        self.listed_at = -inf
        #: Monotonic time of the last failure to get one.
        self._failed_at = -inf
        #: Incremented when the names change.
        self.changes = 0
        self.configure(declared)

    def configure(self, declared: UpstreamSettings) -> None:
        """Applies other settings for the same server; its list is kept unless other
        models are configured."""
        if self.listing is None or declared.models != self._declared.models:
            self.forget()
            # A provider may have no list to show; its configured models exist without one.
            known = {} if self._is_ollama_node else declared.models
            self.listing = (
                Listing(_describe_configured(known, (), declared.name)) if known else None
            )
            self.changes += 1
        self._declared = declared

    def fetch(self, call: Call) -> None:
        """Fetches the list. Raises GatewayError, and keeps the list that was there."""
        try:
            listed, loaded = self._upstream.models(call), tuple(self._upstream.loaded(call))
        except GatewayError:
            self._failed_at = call.clock.monotonic()
            raise
        known = {canonical(model.name): (model.name, model) for model in listed}
        if configured := self._declared.models:
            known = _describe_configured(
                configured, listed, self._declared.name, only_listed=self._is_ollama_node
            )
        before = self.listing.models if self.listing else None
        if (
            before is None
            or before.keys() != known.keys()
            or any(before[name][0] != known[name][0] for name in known)
        ):
            self.changes += 1
        self.listing, self.listed_at = Listing(known, loaded), call.clock.monotonic()
        self.loaded = frozenset(canonical(str(row.get("name"))) for row in loaded)

    def fetch_loaded(self, call: Call) -> None:
        """Fetches only which models are loaded. Raises GatewayError."""
        self.loaded = frozenset(
            canonical(str(row.get("name"))) for row in self._upstream.loaded(call)
        )

    def forget(self) -> None:
        """Marks the list as outdated: the models may have changed."""
        self.listed_at = -inf

    def is_older(self, than: float) -> bool:
        """Whether the list is older than this monotonic time, and a newer one could differ: those
        of providers rarely change, and those of the configuration never."""
        if self._declared.drain:
            return False
        if not self._is_ollama_node:
            than = -inf if self.listing and self._declared.models else than - PROVIDER_LIST_S
        return self.listed_at < than

    def is_worth_fetching(self, now: float) -> bool:
        """Whether the upstream may return a list: some providers have none."""
        return self._is_ollama_node or self._failed_at < now - PROVIDER_LIST_S

    def upstream_model(self, name: str) -> str | None:
        """The upstream's name of the model that clients know by this canonical name; None if
        it has no such model."""
        found = self.listing.models.get(name) if self.listing else None
        return found[0] if found else None


def _describe_configured(
    models: Mapping[str, UpstreamModel],
    listed: Iterable[Model],
    owner: str,
    *,
    only_listed: bool = False,
) -> dict[str, tuple[str, Model]]:
    """The models of the configuration, with the details that the upstream lists."""
    details = {canonical(model.name): model for model in listed}
    known = {}
    for name, configured in models.items():
        model = details.get(canonical(configured.id))
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
