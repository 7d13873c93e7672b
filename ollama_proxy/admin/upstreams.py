"""Upstreams: those of the configuration file, which are shown, and those of the records,
which can be changed."""

from __future__ import annotations

from flask import Response
from marshmallow import fields

from ollama_proxy.admin.entries import Entry, describe_entries
from ollama_proxy.admin.records import change, check_not_in_file
from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, declared
from ollama_proxy.admin.upstream_trial import Trial, declare, try_upstream
from ollama_proxy.errors import NotFound
from ollama_proxy.hub import Json
from ollama_proxy.settings import UpstreamSettings, effective_upstreams
from ollama_proxy.texts import Translatable

SECTION = Section("upstreams", "Servers that run models.", path="upstreams")


class Health(Answer):
    """An upstream as the worker sees it that answers."""

    state = fields.String(
        metadata={"description": "up, down, half-open, draining, unknown, or hidden without a key."}
    )
    version = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    models = fields.Integer(
        allow_none=True, metadata={"description": "How many it has; null: not known."}
    )
    loaded = fields.List(fields.String())
    failing_models = fields.List(fields.String())
    in_flight = fields.Integer()


class Upstream(Entry):
    """An upstream; `value` is as the file would have it, without its name and defaults."""

    health = fields.Nested(
        Health, allow_none=True, metadata={"description": "null: not in use yet."}
    )


class Upstreams(Answer):
    """Every upstream, those of the file first."""

    upstreams = fields.List(fields.Nested(Upstream))


class UpstreamTest(Answer):
    """What a server has answered."""

    name = fields.String()
    problem = fields.String(
        allow_none=True, metadata={"description": "Why it can't be used; null: it can."}
    )
    version = fields.String(allow_none=True)
    models = fields.List(fields.String())
    faults = fields.List(
        fields.String(), metadata={"description": "Known faults of its version, a sentence each."}
    )
    took_s = fields.Float()


NewUpstream = declared("NewUpstream", UpstreamSettings)
UpstreamChange = declared("UpstreamChange", UpstreamSettings)


@SECTION.route("GET", answer=Upstreams)
def list_upstreams() -> Json:
    """Every upstream with its health, those of the configuration file first."""
    in_effect = {each.name: each for each in effective_upstreams(current_gateway().settings)}
    return {
        "upstreams": [
            add_health(entry) for entry in describe_entries("upstreams", in_effect).values()
        ]
    }


@SECTION.route("POST", body=NewUpstream, answer=Upstream, status=201)
def create_upstream(body: dict[str, Json]) -> Json:
    """Adds an upstream; the body is what an item of `upstreams` would be. Takes
    effect within two seconds."""
    name = str(body.get("name") or "")
    check_not_in_file("upstreams", name)
    return describe_upstream(
        name, change("create_setting", kind="upstreams", name=name, value=body)
    )


@SECTION.route("PATCH", "/<name>", body=UpstreamChange, answer=Upstream)
def change_upstream(body: dict[str, Json], name: str) -> Json:
    """Changes fields of an upstream, such as `{"drain": true}`; null removes one. Takes
    effect within two seconds."""
    check_not_in_file("upstreams", name)
    return describe_upstream(
        name, change("change_setting", kind="upstreams", name=name, changes=body)
    )


@SECTION.route("DELETE", "/<name>", status=204)
def delete_upstream(name: str) -> Response:
    """Removes an upstream, within two seconds; requests in progress finish."""
    check_not_in_file("upstreams", name)
    change("delete_setting", kind="upstreams", name=name)
    return Response(status=204)


@SECTION.route("POST", "/test", body=NewUpstream, answer=UpstreamTest)
def test_new_upstream(body: dict[str, Json]) -> Json:
    """Asks a server for its version and its models, for some seconds at most, before it is
    added. Changes nothing."""
    gateway, name = current_gateway(), str(body.pop("name", None) or "")
    declared = declare(gateway.settings, name, body)
    return describe_trial(try_upstream(gateway.settings, declared, clock=gateway.clock))


@SECTION.route("POST", "/<name>/test", answer=UpstreamTest)
def test_upstream(name: str) -> Json:
    """Does the same with an upstream that is in use."""
    return describe_trial(try_known(name))


def try_known(name: str) -> Trial:
    """Tries an upstream that is in use; raises NotFound."""
    gateway = current_gateway()
    settings = gateway.settings
    known = next((each for each in effective_upstreams(settings) if each.name == name), None)
    if known is None:
        raise NotFound(Translatable("%(name)s is not in use yet.", name=name[:64]), param="name")
    return try_upstream(settings, known, clock=gateway.clock)


def describe_trial(trial: Trial) -> dict[str, Json]:
    """A trial as answers have it."""
    return {
        "name": trial.name,
        "problem": trial.problem or None,
        "version": trial.version or None,
        "models": list(trial.models),
        "faults": list(trial.faults),
        "took_s": round(trial.took_s, 3),
    }


def put_upstream(name: str, value: dict[str, Json]) -> dict[str, Json]:
    """Replaces an upstream of the records by another value, and returns it as answers have it."""
    check_not_in_file("upstreams", name)
    return describe_upstream(name, change("put_setting", kind="upstreams", name=name, value=value))


def describe_upstream(name: str, value: dict[str, Json]) -> dict[str, Json]:
    """An upstream of the records, as answers have it."""
    return add_health({"name": name, "source": "records", "where": None, "value": value})


def add_health(entry: dict[str, Json]) -> dict[str, Json]:
    """The same with what this worker knows of the upstream."""
    state = current_gateway().describe_upstreams().get(entry["name"])
    unknown: dict[str, Json] = dict.fromkeys(("version", "reason", "models")) | {"in_flight": 0}
    return entry | {"health": state and unknown | {"loaded": [], "failing_models": []} | state}
