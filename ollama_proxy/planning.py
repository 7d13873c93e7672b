"""What a request to a model comes to: the team's word on the model, and the upstreams that may answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ollama_proxy.errors import BadRequest, ModelNotFound
from ollama_proxy.policy.access import INVALID_NAME, check_cloud, check_name, check_ollama_names
from ollama_proxy.policy.auth import Principal
from ollama_proxy.policy.catalogue import Catalogue, TeamModel
from ollama_proxy.policy.names import canonical, is_allowed, is_plain
from ollama_proxy.upstreams.fleet import Fleet, Route


@dataclass(slots=True, frozen=True)
class Plan:
    """A model under the name that a client used, and where it is."""

    model: TeamModel
    route: Route

    def on(self, own: str) -> TeamModel:
        """The model as one upstream calls it."""
        return self.model if own == self.model.target else replace(self.model, target=own)


def plan(principal: Principal | None, name: str, catalogue: Catalogue, fleet: Fleet) -> Plan:
    """Raises BadRequest for a name that no model can have, ModelNotFound for a model that is nowhere, or outside the
    token's list; Forbidden for one in Ollama's cloud that the operator does not name."""
    if not name and not fleet.is_single:
        raise BadRequest("model is required", param="model")
    check_name(name, catalogue)
    check_cloud(name, catalogue)
    model = catalogue.find(name)
    route = fleet.find(model.target)
    if route is not None:
        check_sent_names(route)
        route = permitted(principal.models if principal else (), model, route)
    if route is None:
        raise ModelNotFound(f"model '{name[:200]}' not found", param="model", detail="nowhere, or not for this token")
    return Plan(model, route)


def check_sent_names(route: Route) -> None:
    """Raises BadRequest if an upstream could take the name that it is sent for that of another model."""
    for node, own in route.nodes:
        if node.is_box:
            check_ollama_names((own,))
        elif not is_plain(own) and node.own_name(canonical(own)) != own:
            raise BadRequest(INVALID_NAME, param="model")


def permitted(patterns: Sequence[str], model: TeamModel, route: Route) -> Route | None:
    """As much of a route as a token with these patterns (none: every model) may use. What counts is the name that the
    team gave the model, or the one name that all of its spellings mean; a pattern may also name an upstream."""
    if not patterns or not model.name or is_allowed(route.name, patterns):
        return route
    if model.is_alias and model.is_named and is_allowed(model.name, patterns):
        return route
    named = [node for node, _ in route.nodes if any(is_allowed(each, patterns) for each in route.spellings(node))]
    return route.only(named) if named else None
