"""What callers may know of themselves, with any token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from marshmallow import fields

from ollama_proxy.admin.records import current_coordinator, has_records
from ollama_proxy.admin.records import query as ask
from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, Sums, text
from ollama_proxy.admin.usage import BY, Requests, RequestsQuery, Usage, UsageQuery
from ollama_proxy.coordination import Subject
from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.gateway import current_exchange, flow_of
from ollama_proxy.hub import Json
from ollama_proxy.policy import ANY_TOKEN, ANYONE
from ollama_proxy.settings import find_timezone

SECTION = Section("me", "The caller's own token.", path="me")


class Limit(Answer):
    """A limit, and what is left of it."""

    limit = fields.Float()
    remaining = fields.Float(allow_none=True, metadata={"description": "null: not known now."})
    resets_in_s = fields.Float(
        allow_none=True, metadata={"description": "Until nothing of it is used any more."}
    )


class OwnUsage(Answer):
    """What the token has used; null: nothing is recorded, or the records can't be reached now."""

    day = fields.Nested(Sums, allow_none=True)
    month = fields.Nested(Sums, allow_none=True)


class Me(Answer):
    """The caller's own token, and nobody else's."""

    name = fields.String()
    scopes = fields.List(fields.String())
    models = fields.List(
        fields.String(), allow_none=True, metadata={"description": "Patterns; null: every model."}
    )
    limits = fields.Dict(keys=fields.String(), values=fields.Nested(Limit))
    user = fields.String(
        allow_none=True, metadata={"description": "The user, if a trusted header names one."}
    )
    user_limits = fields.Dict(keys=fields.String(), values=fields.Nested(Limit))
    usage = fields.Nested(OwnUsage)
    currency = fields.String()


class OwnUsageQuery(UsageQuery):
    """What a report of the own token has."""

    class Meta:
        exclude = ("limit", "cursor", "token", "format")

    by = text(BY, load_default="model")


class OwnRequestsQuery(RequestsQuery):
    """Which of the own requests."""

    class Meta:
        exclude = ("token",)


@SECTION.route("GET", answer=Me, scope=ANY_TOKEN)
def show_me() -> Json:
    """The caller's own scopes, models, limits with what is left of them, and usage
    of this day and month."""
    description, today = describe_caller(), find_today()
    usage: dict[str, Json] = {"day": None, "month": None}
    if has_records():
        with suppress(RecordsUnavailable):
            begins = {"day": today, "month": today[:7]}
            usage = {
                unit: show_own_usage({"by": "token", "start": begins[unit]})["total"]
                for unit in begins
            }
    return description | {"usage": usage}


@SECTION.route("GET", "/usage", query=OwnUsageQuery, answer=Usage, scope=ANY_TOKEN)
def show_own_usage(query: dict[str, str]) -> Json:
    """Sums of what the caller's own token has used."""
    return ask("usage", **_own(query))


@SECTION.route("GET", "/requests", query=OwnRequestsQuery, answer=Requests, scope=ANY_TOKEN)
def list_own_requests(query: dict[str, Json]) -> Json:
    """Requests of the caller's own token that are over, newest first."""
    return ask("requests", **_own(query))


def _own(query: Mapping[str, Json]) -> dict[str, Json]:
    """The query, limited to the caller's own token."""
    name = (current_exchange().principal or ANYONE).name
    return {**query, "token": name, "timezone": current_gateway().settings.records.timezone}


def describe_caller() -> dict[str, Any]:
    """The same without its usage; waits for the coordinator for a second or two."""
    exchange = current_exchange()
    principal = exchange.principal or ANYONE
    limits = describe_limits(
        flow_of(principal, exchange.trusted_user, is_background=False).subjects
    )
    return {
        "name": principal.name,
        "scopes": sorted(principal.scopes),
        "models": list(principal.models) or None,
        "limits": limits.get(f"token:{principal.name}", {}),
        "user": exchange.trusted_user,
        "user_limits": limits.get(f"user:{principal.name}/{exchange.trusted_user}", {}),
        "currency": current_gateway().settings.records.currency,
    }


def find_today() -> str:
    """The day that it is in `records.timezone`, in ISO 8601."""
    gateway = current_gateway()
    return gateway.clock.now(find_timezone(gateway.settings.records.timezone)).date().isoformat()


def describe_limits(subjects: Sequence[Subject]) -> dict[str, Json]:
    """The limits of each subject by name, with what is left of them as far as that is known."""
    coordinator = current_coordinator()
    known = coordinator.read_limits(subjects) if coordinator is not None and subjects else {}
    unknown = {"remaining": None, "resets_in_s": None}
    return {
        subject.key: {
            name: {"limit": limit} | known.get(subject.key, {}).get(name, unknown)
            for name, limit in subject.limits.items()
        }
        for subject in subjects
    }
