"""The settings in effect with their sources, and a check of a configuration
file before it is saved."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import gevent
from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from ollama_proxy.admin.entries import EntryKind, find_source
from ollama_proxy.admin.routes import MAX_BODY, Section, current_gateway
from ollama_proxy.admin.schemas import Answer
from ollama_proxy.errors import ConfigError
from ollama_proxy.hub import Json
from ollama_proxy.settings import (
    Settings,
    check_tokens_left,
    config_path,
    place_of,
    setting_names,
    settings_from,
    show_value,
    shown_path,
)

SECTION = Section(
    "settings", "Settings in effect, and a check of a configuration file.", path="settings"
)


class Setting(Answer):
    """A setting in effect; secrets are masked."""

    name = fields.String()
    value = fields.Raw(allow_none=True)
    source = fields.String(validate=OneOf(["default", "file", "environment", "records"]))
    where = fields.String(
        allow_none=True, metadata={"description": "File and line, or variable; null: neither."}
    )


class SettingList(Answer):
    """Every setting; each entry of `models` and `upstreams` is one, such as `models.coder`."""

    settings = fields.List(fields.Nested(Setting))


class CheckRequest(Schema):
    """A configuration file."""

    yaml = fields.String(required=True, validate=Length(max=MAX_BODY))


class ConfigProblem(Answer):
    """What is wrong with a configuration file."""

    line = fields.Integer(
        allow_none=True, metadata={"description": "null: it is about no single line."}
    )
    message = fields.String()


class ConfigProblems(Answer):
    """What is wrong with a configuration file; empty: nothing."""

    problems = fields.List(fields.Nested(ConfigProblem))


@SECTION.route("GET", answer=SettingList)
def list_settings() -> Json:
    """Every setting in effect with its source."""
    settings = current_gateway().settings
    upstreams = {each.name: each for each in settings.upstreams}
    by_entry: dict[EntryKind, Mapping[str, Any]] = {
        "models": settings.models,
        "upstreams": upstreams,
    }
    rows: list[Json] = []
    for name in setting_names():
        if name not in by_entry:
            where, source = find_source(settings.origins.get(name))
            rows.append(
                {
                    "name": name,
                    "value": show_value(attrgetter(name)(settings)),
                    "source": source,
                    "where": where,
                }
            )
    for kind, entries in by_entry.items():  # each of which has a source of its own
        for name, entry in entries.items():
            place = place_of(settings, kind, name)
            where, source = find_source(place) if place else (None, "records")
            rows.append(
                {
                    "name": f"{kind}.{name}",
                    "value": show_value(entry),
                    "source": source,
                    "where": where,
                }
            )
    return {"settings": rows}


@SECTION.route("POST", "/check", body=CheckRequest, answer=ConfigProblems)
def check_settings(body: dict[str, str]) -> Json:
    """What is wrong with the text of a configuration file, with its lines. Changes nothing."""
    # YAML takes a second for a megabyte, in which other requests must go on.
    problems = gevent.get_hub().threadpool.apply(
        list_problems, (body["yaml"], current_gateway().settings)
    )
    return {"problems": problems}


def list_problems(text: str, before: Settings) -> list[dict[str, Json]]:
    """What is wrong with the text of a configuration file. `before`: the settings in effect."""
    path = before.source or config_path(os.environ)
    try:
        check_tokens_left(
            settings_from(text.encode("utf-8", "surrogatepass"), path, os.environ), before, path
        )
    except ConfigError as error:
        return [split_complaint(complaint, shown_path(path)) for complaint in error.complaints]
    return []


def split_complaint(complaint: str, file: str) -> dict[str, Json]:
    """The line, if there is one, and the text of an error about a file."""
    match = re.match(rf"(?s){re.escape(file)}(?::(\d+))?: (.*)", complaint)
    line, message = match.groups() if match else (None, complaint)
    return {"line": line and int(line), "message": message}
