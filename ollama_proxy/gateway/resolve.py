"""Resolves the model of a request: the operator's rules for the model, and the
upstreams that may answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
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

#: Signs of a name that stands for more than one model: further names after a comma, settings
#: stored at the provider.
_COMPOSITE = (",", "@preset/")

#: The fields that a fallback model in a request may have, besides being a plain name.
_FALLBACK_FIELDS = frozenset({"model", "messages"})

#: How many further models one field may name.
_MAX_NAMED = 64


@dataclass(slots=True, frozen=True)
class ResolvedModel:
    """A model under the name that a client used, and its route."""

    model: ModelAlias
    route: Route

    def on(self, upstream_model: str) -> ModelAlias:
        """Returns the model under the name that one upstream has for it."""
        return (
            self.model
            if upstream_model == self.model.target
            else replace(self.model, target=upstream_model)
        )


def resolve_model(
    principal: Principal | None, name: str, model_aliases: ModelAliases, fleet: Fleet
) -> ResolvedModel:
    """Raises BadRequest for a name that no model can have, or that an upstream could take for that
    of another model; ModelNotFound for a model that no upstream has, or outside the token's list;
    Forbidden for one in Ollama's cloud that the operator does not name."""
    if not name and not fleet.is_single:
        raise BadRequest("model is required", param="model")
    check_name(name, model_aliases)
    check_cloud(name, model_aliases)
    model = model_aliases.find(name)
    route = fleet.find(model.target)
    if route is not None:
        route = permitted(principal.models if principal else (), model, route)
    if route is None:
        raise ModelNotFound(
            f"model '{name[:200]}' not found",
            param="model",
            detail="nowhere, or not for this token",
        )
    for node, upstream_model in route.nodes:
        if node.is_ollama_node:
            check_ollama_names((upstream_model,))
        elif (
            not is_plain(upstream_model)
            and node.models.upstream_model(route.bare) != upstream_model
        ):
            raise BadRequest(INVALID_NAME, param="model")
    return ResolvedModel(model, route)


def permitted(patterns: Sequence[str], model: ModelAlias, route: Route) -> Route | None:
    """Returns the part of a route that a token with these patterns (none: every model) may use.
    Patterns apply to the name that the operator gave the model, or else to its canonical name; a
    pattern may also name an upstream."""
    if not patterns or not model.name or is_allowed(route.name, patterns):
        return route
    if model.is_alias and model.is_named and is_allowed(model.name, patterns):
        return route
    named = [
        node
        for node, _ in route.nodes
        if any(is_allowed(each, patterns) for each in route.spellings(node))
    ]
    return route.only(named) if named else None


def check_choices(
    principal: Principal | None, data: Mapping[str, Json], route: Route, fleet: Fleet
) -> None:
    """Applies a token's list of models to everything else that a request to a provider chooses:
    raises ModelNotFound for a model outside the list, and Forbidden for a choice that no list of
    models covers. `data`: the client's body."""
    if principal is None or not principal.models:
        return
    for node, upstream_model in route.nodes:
        if node.is_ollama_node:
            continue
        if (
            _is_composite(upstream_model)
            and node.models.upstream_model(route.bare) != upstream_model
        ):
            raise _uncheckable("model")
        for field in node.profile.routing_fields:
            if data.get(field) not in (None, False, []):
                raise _uncheckable(field)
        for field in node.profile.model_fields:
            if field in data:
                _check_further_models(principal.models, data[field], field, node, fleet)


def _check_further_models(
    patterns: Sequence[str], value: Json, field: str, node: Node, fleet: Fleet
) -> None:
    """Applies a token's list of models to a field that names one or several of this upstream's
    models, as names or as LiteLLM's fallbacks. Raises Forbidden for anything else, and for more
    models than a sensible request names."""
    listed = value if isinstance(value, list) else [value]
    if len(listed) > _MAX_NAMED:
        raise _uncheckable(field)
    for each in listed:
        name = (
            each.get("model")
            if isinstance(each, dict) and each.keys() <= _FALLBACK_FIELDS
            else each
        )
        if each is None:
            continue
        if not isinstance(name, str):
            raise _uncheckable(field)
        check_name(name)
        check_cloud(name, UNNAMED)
        if not is_plain(name):
            raise BadRequest(INVALID_NAME, param=field)
        if _is_composite(name):
            raise _uncheckable(field)
        there = fleet.find(f"{node.name}/{name}")
        if there is None or not permitted(patterns, ModelAlias(name, name, NO_RULES), there):
            raise ModelNotFound(
                f"model '{name[:200]}' not found", param=field, detail="not in the token's models"
            )


def _is_composite(name: str) -> bool:
    return any(sign in name for sign in _COMPOSITE)


def _uncheckable(field: str) -> Forbidden:
    return Forbidden(
        f"This token is limited to certain models, and the value of '{field[:40]}' "
        "could choose others.",
        param=field,
    )


def has_only_known_fields(data: Mapping[str, Json], known: Set[str], route: Route) -> bool:
    """Whether the gateway knows the meaning of everything in a body: the fields of an API, `known`,
    those of the profile, and tools that clients run themselves."""
    tools = data.get("tools") or []
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and tool.get("type") in ("function", "custom") for tool in tools
    ):
        return False
    unknown = data.keys() - known
    profiles = [node.profile for node, _ in route.nodes]
    return all(unknown <= {*profile.fields, *profile.model_fields} for profile in profiles)
