"""What pages of the records share: they stay up while the records can't be reached, and say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.records import has_records
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.errors import BadRequest, RecordsUnavailable
from ollama_proxy.hub import Json


def read_records(view: Callable[[dict[str, Any]], Any], query: dict[str, Any]) -> dict[str, Any]:
    """What a view of the API answers, as values of a template: `answer`, None if there is
    none; `problem` says why, `is_recorded` is False if nothing is recorded here, and
    `status` is that of the page."""
    found: dict[str, Any] = {
        "answer": None,
        "problem": "",
        "is_recorded": has_records(),
        "status": 200,
    }
    if not found["is_recorded"]:
        return found
    try:
        return found | {"answer": view(query)}
    except RecordsUnavailable:
        problem = _(
            "The database of the records can't be reached. Requests continue; what they "
            "use appears here later."
        )
        return found | {"problem": problem}
    except BadRequest as error:
        return found | {"problem": str(error), "status": error.status}


def suggest_names() -> dict[str, list[str]]:
    """Names of keys, models and upstreams for fields in which one can be typed; older ones
    may be in the records."""
    gateway = current_gateway()
    listings = [node.models.listing for node in gateway.fleet.nodes]
    listed = {name for listing in listings if listing for name in listing.models}
    return {
        "token": sorted(token.name for token in gateway.settings.auth.tokens()),
        "model": sorted(listed | set(gateway.settings.models)),
        "upstream": sorted(node.name for node in gateway.fleet.nodes),
    }


def pick(values: Mapping[str, str], names: tuple[str, ...]) -> dict[str, Json]:
    """Those of the values that are given and not empty."""
    return {name: values[name].strip() for name in names if values.get(name, "").strip()}
