"""The form of a key: its fields as the API takes them, and as browsers send them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from werkzeug.datastructures import MultiDict

from ollama_proxy.admin.pages.formats import number
from ollama_proxy.admin.pages.language import N_, gettext
from ollama_proxy.hub import Json
from ollama_proxy.policy import ADMIN, GENERATE, MANAGE, METRICS, READ
from ollama_proxy.settings import BACKGROUND, NORMAL

#: What each scope permits.
SCOPE_TITLES: Mapping[str, str] = {
    READ: N_("list models, see its own usage"),
    GENERATE: N_("chat, completions, embeddings"),
    MANAGE: N_("pull, create and delete models"),
    ADMIN: N_("everything on these pages"),
    METRICS: N_("read the metrics"),
}

#: The titles of limits, in the order in which they are shown, and the filter that
#: writes their amounts.
LIMIT_TITLES: Mapping[str, tuple[str, str]] = {
    "requests_per_minute": (N_("Requests per minute"), "number"),
    "tokens_per_minute": (N_("Tokens per minute"), "number"),
    "concurrent": (N_("Requests at a time"), "number"),
    "tokens_per_day": (N_("Tokens per day"), "number"),
    "tokens_per_month": (N_("Tokens per month"), "number"),
    "gpu_seconds_per_day": (N_("GPU time per day"), "seconds"),
    "gpu_seconds_per_month": (N_("GPU time per month"), "seconds"),
    "cost_per_day": (N_("Cost per day"), "money"),
    "cost_per_month": (N_("Cost per month"), "money"),
}

#: The same in a list of keys.
_LIMIT_LINES: Mapping[str, str] = {
    "requests_per_minute": N_("%(limit)s requests/min"),
    "tokens_per_minute": N_("%(limit)s tokens/min"),
    "concurrent": N_("%(limit)s at a time"),
    "tokens_per_day": N_("%(limit)s tokens/day"),
    "tokens_per_month": N_("%(limit)s tokens/month"),
    "gpu_seconds_per_day": N_("%(limit)s GPU s/day"),
    "gpu_seconds_per_month": N_("%(limit)s GPU s/month"),
    "cost_per_day": N_("%(limit)s cost/day"),
    "cost_per_month": N_("%(limit)s cost/month"),
}

_PRIORITY_LINES: Mapping[str, str] = {
    NORMAL: N_("priority: normal"),
    BACKGROUND: N_("priority: background"),
}

#: What a limit says that is none, whatever the default is.
UNLIMITED = "none"

#: Of a new key.
EMPTY: MultiDict[str, str] = MultiDict([("scopes", READ), ("scopes", GENERATE)])

State = Literal["active", "disabled", "expired"]


def read_fields(form: MultiDict[str, str]) -> dict[str, Json]:
    """The fields of a key, without its name. What is no valid value goes on as it was typed:
    the settings say why."""
    header, limits = _text(form, "user_header"), _limits(form, "user_limit")
    users = ({"header": header} if header else {}) | {"limits": limits}
    return {
        "scopes": form.getlist("scopes"),
        "models": [each for each in re.split(r"[\s,]+", form.get("models", "")) if each] or None,
        "expires": _text(form, "expires"),
        "weight": _number(form, "weight"),
        "priority": _text(form, "priority"),
        "limits": _limits(form, "limit"),
        "users": users if header or limits else None,
        "note": _text(form, "note"),
    }


def fill(token: Mapping[str, Json]) -> MultiDict[str, str]:
    """What the fields of the form show for a key."""
    users = token["users"] or {}
    form = MultiDict[str, str]([("scopes", scope) for scope in token["scopes"]])
    form["name"], form["models"] = token["name"], "\n".join(token["models"] or ())
    for name in ("expires", "weight", "priority", "note"):
        form[name] = "" if token[name] is None else _write(token[name])
    form["user_header"] = users.get("header") or ""
    for lead, limits in (("limit", token["limits"]), ("user_limit", users.get("limits", {}))):
        for name, limit in limits.items():
            form[f"{lead}.{name}"] = UNLIMITED if limit is None else _write(limit)
    return form


def find_state(token: Mapping[str, Json]) -> State:
    """Whether a key is accepted."""
    if token["disabled"]:
        return "disabled"
    is_over = token["expires"] and token["expires"] < datetime.now(UTC).date().isoformat()
    return "expired" if is_over else "active"


def list_limits(token: Mapping[str, Json]) -> list[str]:
    """What a key sets of limits and shares, a line each."""
    lines = [
        gettext(_LIMIT_LINES[name], limit=_show(limit)) for name, limit in token["limits"].items()
    ]
    if token["users"]:
        lines.append(gettext("users by %(header)s", header=token["users"]["header"]))
        limits = token["users"]["limits"].items()
        lines += [
            gettext("each: %(limit)s", limit=gettext(_LIMIT_LINES[name], limit=_show(it)))
            for name, it in limits
        ]
    if priority := token["priority"]:
        lines.append(gettext(_PRIORITY_LINES[priority]))
    if token["weight"] is not None:
        lines.append(gettext("weight: %(number)s", number=_write(token["weight"])))
    return lines


def _show(limit: float | None) -> str:
    if limit is None:
        return gettext("any number of")
    return number(limit) if limit == int(limit) else _write(limit)


def _write(value: Json) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _text(form: MultiDict[str, str], name: str) -> str | None:
    return form.get(name, "").strip() or None


def _number(form: MultiDict[str, str], name: str) -> Json:
    typed = form.get(name, "").strip().replace(",", "").replace("_", "")
    if re.fullmatch(r"[0-9]{1,15}", typed):
        return int(typed)
    return float(typed) if re.fullmatch(r"[0-9]{0,15}\.[0-9]{1,15}", typed) else _text(form, name)


def _limits(form: MultiDict[str, str], lead: str) -> dict[str, Json]:
    typed = {name: _number(form, f"{lead}.{name}") for name in LIMIT_TITLES}
    return {
        name: None if isinstance(value, str) and value.lower() == UNLIMITED else value
        for name, value in typed.items()
        if value is not None
    }
