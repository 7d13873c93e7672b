"""Entries of `models`: aliases, defaults, limits and prices of models."""

from __future__ import annotations

from flask import Response
from marshmallow import fields

from ollama_proxy.admin.entries import Entry, describe_entries
from ollama_proxy.admin.records import change, check_not_in_file
from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, declared
from ollama_proxy.hub import Json
from ollama_proxy.settings import ModelSettings

SECTION = Section("models", "Aliases, defaults, limits and prices of models.", path="models")


class Model(Entry):
    """An entry of `models`; `value` is as the file would have it, without defaults."""


class Models(Answer):
    """Every entry, those of the file first."""

    models = fields.List(fields.Nested(Model))


ModelValue = declared("ModelValue", ModelSettings)


@SECTION.route("GET", answer=Models)
def list_models() -> Json:
    """Every entry of `models`, those of the configuration file first."""
    return {"models": list(describe_entries("models", current_gateway().settings.models).values())}


@SECTION.route("PUT", "/<path:name>", body=ModelValue, answer=Model)
def put_model(body: dict[str, Json], name: str) -> Json:
    """Adds or replaces an entry; the body is what `models.NAME` of the file would be. Takes
    effect within two seconds."""
    check_not_in_file("models", name)
    value = change("put_setting", kind="models", name=name, value=body)
    return {"name": name, "source": "records", "where": None, "value": value}


@SECTION.route("DELETE", "/<path:name>", status=204)
def delete_model(name: str) -> Response:
    """Removes an entry, within two seconds."""
    check_not_in_file("models", name)
    change("delete_setting", kind="models", name=name)
    return Response(status=204)
