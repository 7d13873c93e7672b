"""Checks what a token may do: the scopes of routes, and the rules on models and on loading them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ollama_proxy.errors import BadRequest, Forbidden, ModelNotFound
from ollama_proxy.policy.auth import Principal
from ollama_proxy.policy.model_aliases import ModelAliases
from ollama_proxy.policy.model_names import OLLAMA_NAME, is_allowed, is_cloud, is_well_formed
from ollama_proxy.settings import MANAGE, MAX_DURATION_CHARS, go_duration_s, is_go_unit
from ollama_proxy.texts import Translatable

if TYPE_CHECKING:
    from ollama_proxy.hub import Json

#: Instead of the scope of a route: it needs no token, or any one.
PUBLIC, ANY_TOKEN = "public", "any token"

#: No aliases: only the names of the upstreams.
UNNAMED = ModelAliases({}, ())

#: Ollama's own text.
INVALID_NAME = "invalid model name"

#: The longest beginning of a duration that Go's parser takes for a number with
#: its unit, known or not.
_NUMBER_AND_UNIT = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?P<unit>[^0-9.]*)", re.ASCII)

#: A lease above this counts as pinning a shared model, in seconds.
PIN_ABOVE_S = 24 * 3600.0

#: A lease below this is no lease: the model would be gone before the next request, in seconds.
UNLOAD_BELOW_S = 1.0


def check_scope(principal: Principal, endpoint: str, scopes: Mapping[str, str]) -> None:
    """Raises Forbidden if the token lacks the scope of a route; `scopes` maps endpoints to scopes.
    A route without a scope needs `manage`. Without an endpoint there is no such route, and the
    client gets a 404 later."""
    scope = scopes.get(endpoint, MANAGE if endpoint else PUBLIC)
    if scope not in principal.scopes and scope not in (PUBLIC, ANY_TOKEN):
        raise Forbidden(
            Translatable("This token lacks the scope '%(scope)s'.", scope=scope),
            detail=f"scope {scope}",
        )


def check_name(name: str, model_aliases: ModelAliases = UNNAMED) -> None:
    """Raises BadRequest for a text that cannot name a model of any upstream, before any rule is
    applied to it: parsers may disagree about it. Only a name that the operator configured, with a
    target, may have spaces."""
    if not is_well_formed(name) or (" " in name and not model_aliases.is_alias(name)):
        raise BadRequest(INVALID_NAME, param="model")


def check_ollama_names(names: Iterable[str]) -> None:
    """Raises BadRequest for names that Ollama's parser would refuse, or understand differently from
    the gateway; a missing name is left for Ollama to refuse."""
    for name in names:
        if name and not OLLAMA_NAME.fullmatch(name):
            raise BadRequest(INVALID_NAME, param="model")


def check_cloud(name: str, model_aliases: ModelAliases) -> None:
    """Raises Forbidden for a model in Ollama's cloud that the operator has not configured."""
    if is_cloud(name) and not model_aliases.names(name):
        raise Forbidden("ollama cloud is disabled: remote model is unavailable", param="model")


def check_own_names(principal: Principal, names: Iterable[str]) -> None:
    """Applies check_cloud, the token's list of models and check_ollama_names to names that go to an
    Ollama server as they are."""
    for name in names:
        check_cloud(name, UNNAMED)
        if name and principal.models and not is_allowed(name, principal.models):
            raise ModelNotFound(
                f"model '{name}' not found", param="model", detail="not in the token's models"
            )
        check_ollama_names((name,))


def check_lease(principal: Principal | None, keep_alive: Json) -> None:
    """Raises BadRequest for a `keep_alive` that Ollama would refuse, Forbidden for one that unloads
    or pins a model that others use as well, unless the token has the scope `manage`."""
    lease_s = keep_alive_s(keep_alive)
    if lease_s is None or UNLOAD_BELOW_S <= lease_s <= PIN_ABOVE_S:
        return
    if principal is None or MANAGE not in principal.scopes:
        verb = "unload" if 0 <= lease_s < UNLOAD_BELOW_S else "pin"
        raise Forbidden(
            f"This token lacks the scope 'manage', which is needed to {verb} a model.",
            param="keep_alive",
        )


def keep_alive_s(value: Json) -> float | None:
    """Returns the seconds of a `keep_alive` field, None if absent; negative: forever. Raises
    BadRequest like Ollama."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kind = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}.get(
            type(value), "unknown"
        )
        raise BadRequest(f"Unsupported type: '{kind}'", param="keep_alive")
    if not isinstance(value, str):
        return float(value)
    try:
        return go_duration_s(value)
    except ValueError:
        raise BadRequest(_describe_duration_error(value), param="keep_alive") from None


def _describe_duration_error(text: str) -> str:
    """Returns the error text of Go's time.ParseDuration for an invalid duration."""
    quoted = _go_quoted(text if len(text) <= MAX_DURATION_CHARS else text[:40])
    rest = text.removeprefix(text[:1] if text[:1] in ("-", "+") else "")
    while len(text) <= MAX_DURATION_CHARS and (part := _NUMBER_AND_UNIT.match(rest)):
        unit = part["unit"]
        if not unit:
            return f"time: missing unit in duration {quoted}"
        if not is_go_unit(unit):
            return f"time: unknown unit {_go_quoted(unit)} in duration {quoted}"
        rest = rest[part.end() :]
    return f"time: invalid duration {quoted}"


def _go_quoted(text: str) -> str:
    escaped = (
        rf"\x{each:02x}" if each < 0x20 or each > 0x7E else chr(each) for each in text.encode()
    )
    return '"' + "".join("\\" + each if each in '"\\' else each for each in escaped) + '"'
