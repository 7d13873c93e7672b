"""Entries of `models` and `upstreams`: those of the configuration file, which are shown, and those
of the records, which can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from marshmallow import fields
from marshmallow.validate import OneOf

from ollama_proxy.admin.records import has_records, query
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.admin.schemas import Answer
from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.hub import Json
from ollama_proxy.settings import VARIABLE_WORDS, place_of, show_value

EntryKind = Literal["models", "upstreams"]


class Entry(Answer):
    """An entry; `value` is as the file would have it, without defaults."""

    name = fields.String()
    source = fields.String(validate=OneOf(["default", "file", "environment", "records"]))
    where = fields.String(
        allow_none=True, metadata={"description": "File and line, or variable; null: neither."}
    )
    value = fields.Dict(keys=fields.String(), values=fields.Raw(allow_none=True))


def describe_entries(kind: EntryKind, in_effect: Mapping[str, Any]) -> dict[str, dict[str, Json]]:
    """Every entry by name, those of the file first. `in_effect`: the settings that requests use
    now. An entry of the records that the file defines, too, has no effect, and is not shown."""
    settings, found = current_gateway().settings, dict[str, dict[str, Json]]()
    managed: dict[str, Json] = {}
    for name, declared in in_effect.items():
        value, place = show_value(declared, with_defaults=False), place_of(settings, kind, name)
        value.pop("name", None)
        if place is None:
            managed[name] = value
        else:
            where, source = find_source(place)
            found[name] = {"name": name, "source": source, "where": where, "value": value}
    if has_records():
        with suppress(RecordsUnavailable):  # else those in effect are shown
            managed = {row["name"]: row["value"] for row in query("list_settings", kind=kind)}
    for name, value in managed.items():
        if place_of(settings, kind, name) is None:
            found[name] = {"name": name, "source": "records", "where": None, "value": value}
    return found


def find_source(place: str | None) -> tuple[str | None, str]:
    """File and line, or variable, and which of them it is. `place`: as the settings have it;
    without a colon it is the name of a setting that has its default."""
    if place is None or (":" not in place and not place.startswith(VARIABLE_WORDS)):
        return None, "default"
    return place, "environment" if place.startswith(VARIABLE_WORDS) else "file"
