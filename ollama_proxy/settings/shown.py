"""Settings as values of JSON or YAML, for people to read: without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from typing import Any

from ollama_proxy.settings.admin import PasswordHash
from ollama_proxy.settings.declare import default_of
from ollama_proxy.settings.formats import MASK, ServiceUrl
from ollama_proxy.settings.tokens import Token

_TOKEN_FIELDS = ("scopes", "models", "expires", "weight", "priority", "limits", "users")


def show_value(value: Any, *, with_defaults: bool = True) -> Any:
    """A setting, or a section of them. `with_defaults`: also what is not set."""
    if isinstance(value, Token):
        return {"name": value.name, "sha256": MASK} | {
            name: show_value(getattr(value, name)) for name in _TOKEN_FIELDS
        }
    if is_dataclass(value) and not isinstance(value, ServiceUrl | PasswordHash):
        value = _read_fields(value, with_defaults)
    match value:
        case ServiceUrl() | PasswordHash():
            return str(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {
                name: show_value(each, with_defaults=with_defaults) for name, each in value.items()
            }
        case frozenset():
            return sorted(value)
        case tuple():
            return [show_value(each, with_defaults=with_defaults) for each in value]
    return value


def _read_fields(section: Any, with_defaults: bool) -> dict[str, Any]:
    names = [each.name for each in fields(section) if "kind" in each.metadata]
    values = {name: getattr(section, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if with_defaults or value != default_of(type(section), name)
    }
