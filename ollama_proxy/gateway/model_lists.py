"""Lists the models that a caller may use, under the operator's names for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeVar

from ollama_proxy.errors import GatewayError, ModelNotFound
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.retries import open_there
from ollama_proxy.gateway.snapshot import Snapshot
from ollama_proxy.hub import Model
from ollama_proxy.upstreams import SHOWN_FOR_S

R = TypeVar("R")


@dataclass(slots=True, frozen=True)
class ModelLists:
    """The lists of models for one caller."""

    _snapshot: Snapshot
    _exchange: Exchange

    def all(self) -> list[Model]:
        """Returns every model that this caller may use."""
        return self.filter(
            self._upstream_models(),
            attrgetter("name"),
            lambda model, name: replace(model, name=name),
        )

    def find(self, name: str) -> Model:
        """Returns one model by any of its names, even one that lists omit; raises ModelNotFound."""
        wanted = self._snapshot.resolve_model(self._exchange, name).route.name
        for model in self._upstream_models():
            if self._snapshot.fleet.identity(model.name) == wanted:
                return replace(model, name=name)
        raise ModelNotFound(f"The model '{name[:200]}' does not exist.", param="model")

    def filter(
        self, rows: Iterable[R], name_of: Callable[[R], str], renamed: Callable[[R, str], R]
    ) -> list[R]:
        """Returns the rows of a list that this caller may see, under the operator's names."""
        identity = self._snapshot.fleet.identity
        return self._snapshot.model_aliases.listed(
            rows, name_of, renamed, identity=identity, may_use=self.may_use
        )

    def may_use(self, name: str) -> bool:
        """Whether the caller's token may use a model by this name."""
        if not (self._exchange.principal and self._exchange.principal.models):
            return True
        try:
            return bool(self._snapshot.resolve_model(self._exchange, name))
        except GatewayError:
            return False

    def _upstream_models(self) -> list[Model]:
        """Returns the models of every upstream; notes those whose list is outdated or
        missing on the exchange."""
        exchange, fleet = self._exchange, self._snapshot.fleet
        if not fleet.is_single:
            exchange.partial = tuple(node.name for node in fleet.refresh(SHOWN_FOR_S))
            return [model for _, model in fleet.models()]
        node = fleet.nodes[0]
        exchange.call.limit(node.timeouts(self._snapshot.settings.timeouts))
        return open_there(node, exchange, lambda: node.upstream.models(exchange.call))
