"""Everything that is derived from the settings: replaced as a whole when they
change, and never edited."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from ollama_proxy.gateway.draining import Lifecycle
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.gateway.prepare import set_limits
from ollama_proxy.gateway.resolve import ResolvedModel, check_choices, resolve_model
from ollama_proxy.gateway.retries import Attempts
from ollama_proxy.gateway.sharing import Sharing
from ollama_proxy.policy import Authenticator, ModelAlias, ModelAliases, OriginPolicy
from ollama_proxy.settings import Settings
from ollama_proxy.upstreams import Call, Fleet, Node

T = TypeVar("T")

#: Limits for work on models, in seconds: a large pull takes hours, and sends
#: nothing while it verifies.
MANAGEMENT_TIMEOUTS = dict.fromkeys(("first_byte_s", "idle_s", "total_s"), 24 * 3600.0)


@dataclass(slots=True, frozen=True)
class Snapshot:
    """The settings, and everything that requests need of them."""

    settings: Settings
    fleet: Fleet
    model_aliases: ModelAliases
    authenticator: Authenticator
    origins: OriginPolicy
    images: ImageFetcher
    max_requests: int
    lifecycle: Lifecycle
    #: None: no request needs a slot, and no caller has limits.
    sharing: Sharing | None = None

    def resolve_model(self, exchange: Exchange, name: str) -> ResolvedModel:
        """Returns a model and its route for this caller; raises what a call to it would raise
        before any upstream is asked. The exchange keeps the result for its own model."""
        known = exchange.resolved_model
        if known is not None and known.model.name == name:
            return known
        resolved = resolve_model(exchange.principal, name, self.model_aliases, self.fleet)
        if name == exchange.model:
            exchange.resolved_model = resolved
        return resolved

    def resolve_prompt(self, exchange: Exchange, name: str) -> ResolvedModel:
        """Does the same for a prompt, whose other fields may choose models as well."""
        resolved = self.resolve_model(exchange, name)
        check_choices(exchange.principal, exchange.data, resolved.route, self.fleet)
        return resolved

    def bind_to_node(
        self,
        exchange: Exchange,
        call: Call,
        resolved: ResolvedModel,
        node: Node,
        upstream_model: str,
        timeout_ms: int | None,
    ) -> ModelAlias:
        """Returns the model as this node knows it, and applies the limits of the node and of
        the model to the call. `upstream_model`: the node's name of the model; `timeout_ms`:
        the caller's own limit."""
        exchange.target = upstream_model if upstream_model != resolved.model.name else ""
        call.limit(node.timeouts(self.settings.timeouts))
        set_limits(exchange, call, resolved.model.rules, timeout_ms)
        return resolved.on(upstream_model)

    def attempts(self, exchange: Exchange, resolved: ResolvedModel) -> Attempts:
        """Returns the attempts for one answer to a prompt."""
        admission = None if self.sharing is None else self.sharing.admit(exchange, resolved)
        return Attempts(self.fleet, resolved.route, exchange, self.lifecycle, admission)

    def open(
        self,
        exchange: Exchange,
        resolved: ResolvedModel,
        ask: Callable[[Node, str], T],
        heartbeat_s: float | None = None,
    ) -> Generator[tuple[()], None, T]:
        """Returns the answer to a prompt of the best node, or of another one if a retry is safe;
        yields after each heartbeat that the request waits for a slot. The exchange has no other
        answer, and the slot on the node is released when the exchange is over."""
        return self.attempts(exchange, resolved).open(exchange.call, ask, heartbeat_s)
