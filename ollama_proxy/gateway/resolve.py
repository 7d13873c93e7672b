"""What a request to a model comes to: the team's word on the model, and the upstreams that may answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from ollama_proxy.errors import BadRequest, Forbidden, ModelNotFound
from ollama_proxy.hub import Json
from ollama_proxy.policy import (
    INVALID_NAME,
    NO_RULES,
    UNNAMED,
    ModelAlias,
    ModelAliases,
    Principal,
    check_cloud,
    check_name,
    check_ollama_names,
    is_allowed,
    is_plain,
)
from ollama_proxy.upstreams import Fleet, Node, Route

#: Signs in a name that stands for more than one model: further names behind a comma, settings stored at the provider.
_COMPOSITE = (",", "@preset/")

#: What of a further model a request may say, if it says more than its name.
_FALLBACK_FIELDS = frozenset({"model", "messages"})

#: Further models that one field may name.
_MOST_NAMED = 64


@dataclass(slots=True, frozen=True)
class ResolvedModel:
    """A model under the name that a client used, and where it is."""

    model: ModelAlias
    route: Route

    def on(self, upstream_model: str) -> ModelAlias:
        """The model as one upstream calls it."""
        return self.model if upstream_model == self.model.target else replace(self.model, target=upstream_model)


def resolve_model(principal: Principal | None, name: str, model_aliases: ModelAliases, fleet: Fleet) -> ResolvedModel:
    """Raises BadRequest for a name that no model can have, ModelNotFound for a model that is nowhere, or outside the
    token's list; Forbidden for one in Ollama's cloud that the operator does not name."""
    if not name and not fleet.is_single:
        raise BadRequest("model is required", param="model")
    check_name(name, model_aliases)
    check_cloud(name, model_aliases)
    model = model_aliases.find(name)
    route = fleet.find(model.target)
    if route is not None:
        route = permitted(principal.models if principal else (), model, route)
    if route is None:
        raise ModelNotFound(f"model '{name[:200]}' not found", param="model", detail="nowhere, or not for this token")
    check_sent_names(route)
    return ResolvedModel(model, route)


def check_sent_names(route: Route) -> None:
    """Raises BadRequest if an upstream could take the name that it is sent for that of another model."""
    for node, upstream_model in route.nodes:
        if node.is_ollama_node:
            check_ollama_names((upstream_model,))
        elif not is_plain(upstream_model) and node.models.upstream_model(route.bare) != upstream_model:
            raise BadRequest(INVALID_NAME, param="model")


def permitted(patterns: Sequence[str], model: ModelAlias, route: Route) -> Route | None:
    """As much of a route as a token with these patterns (none: every model) may use. What counts is the name that the
    team gave the model, or the one name that all of its spellings mean; a pattern may also name an upstream."""
    if not patterns or not model.name or is_allowed(route.name, patterns):
        return route
    if model.is_alias and model.is_named and is_allowed(model.name, patterns):
        return route
    named = [node for node, _ in route.nodes if any(is_allowed(each, patterns) for each in route.spellings(node))]
    return route.only(named) if named else None


def check_choices(principal: Principal | None, data: Mapping[str, Json], route: Route, fleet: Fleet) -> None:
    """Applies a token's list of models to what else a request to a provider chooses: raises ModelNotFound for a model
    outside the list, and Forbidden for a choice that no list of models covers. `data`: the client's body."""
    if principal is None or not principal.models:
        return
    for node, upstream_model in route.nodes:
        if node.is_ollama_node:
            continue
        if _is_composite(upstream_model) and node.models.upstream_model(route.bare) != upstream_model:
            raise _uncheckable("model")
        for field in _given(data, node.profile.routing_fields):
            if data[field] not in (None, False, []):
                raise _uncheckable(field)
        for field in _given(data, node.profile.model_fields):
            for name in _named_models(data[field], field):
                _check_further_model(principal.models, name, field, node, fleet)


def _given(data: Mapping[str, Json], fields: Sequence[str]) -> list[str]:
    # Most requests have none of them.
    return [] if data.keys().isdisjoint(fields) else [field for field in fields if field in data]


def _check_further_model(patterns: Sequence[str], name: str, field: str, node: Node, fleet: Fleet) -> None:
    """Raises what a token's list of models demands for a name that is sent as it is, and means what this upstream means
    by it."""
    check_name(name)
    check_cloud(name, UNNAMED)
    if not is_plain(name):
        raise BadRequest(INVALID_NAME, param=field)
    if _is_composite(name):
        raise _uncheckable(field)
    there = fleet.find(f"{node.name}/{name}")
    if there is None or not permitted(patterns, ModelAlias(name, name, NO_RULES), there):
        raise ModelNotFound(f"model '{name[:200]}' not found", param=field, detail="not in the token's models")


def _is_composite(name: str) -> bool:
    return any(sign in name for sign in _COMPOSITE)


def _named_models(value: Json, field: str) -> Iterator[str]:
    """The models that a field names: one or a list of them, by their names or as fallbacks of LiteLLM. Raises Forbidden
    for anything else, and for more than anyone would name."""
    listed = value if isinstance(value, list) else [value]
    if len(listed) > _MOST_NAMED:
        raise _uncheckable(field)
    for each in listed:
        name = each.get("model") if isinstance(each, dict) and each.keys() <= _FALLBACK_FIELDS else each
        if isinstance(name, str):
            yield name
        elif each is not None:
            raise _uncheckable(field)


def _uncheckable(field: str) -> Forbidden:
    return Forbidden(
        f"This token is limited to certain models, and the value of '{field[:40]}' could choose others.", param=field
    )


def has_only_known_fields(data: Mapping[str, Json], known: Set[str], route: Route) -> bool:
    """Whether a body has nothing but what the gateway knows the meaning of: the fields of an API, `known`, those of the
    profile, and tools that clients run themselves."""
    tools = data.get("tools") or []
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and tool.get("type") in ("function", "custom") for tool in tools
    ):
        return False
    unknown = data.keys() - known
    profiles = [node.profile for node, _ in route.nodes]
    return all(unknown <= {*profile.fields, *profile.model_fields} for profile in profiles)
