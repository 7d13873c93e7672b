"""Who used what: reports, and single requests."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import Schema, fields
from marshmallow.validate import OneOf

from ollama_proxy.admin.records import query as ask
from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, PageQuery, Sums, text, time
from ollama_proxy.gateway import whole
from ollama_proxy.hub import Json
from ollama_proxy.records import csv_text

SECTION = Section("usage", "Who used what, and what it cost.")

#: What is summed.
SUMS = tuple(Sums().fields)


class Subjects(Schema):
    """What usage can be grouped by; what `by` does not name is absent."""

    token = fields.String()
    user = fields.String()
    model = fields.String()
    upstream = fields.String()
    dialect = fields.String()
    hour = time()
    day = fields.String()
    month = fields.String()


#: What `by` takes.
BY = f"Names, separated by commas: {', '.join(Subjects().fields)}."


class UsageRow(Sums, Subjects):
    """Sums for one combination of what `by` names."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Only the sums are always there."""
        field_obj.required = field_name in SUMS


class Usage(Answer):
    """A report."""

    rows = fields.List(fields.Nested(UsageRow))
    total = fields.Nested(Sums)


class UsageQuery(PageQuery):
    """What a report has."""

    class Meta:
        exclude = ("limit", "cursor")

    by = text(BY, load_default="token")
    start = text("The first day or month, or a time. Absent: this month.", data_key="from")
    end = text(
        "The last day or month, or the time before which it ends. Absent: now.", data_key="to"
    )
    token = text("Only this one.")
    user = text("Only this one.")
    model = text("Only this one.")
    upstream = text("Only this one.")
    sort = text("A name of the rows; with - before it, the largest first.")
    format = fields.String(load_default="json", validate=OneOf(["json", "csv"]))


class Attempt(Answer):
    """One attempt of a request at an upstream; times in milliseconds."""

    upstream = fields.String()
    state = fields.String()
    error = fields.String()
    started_ms = fields.Float(allow_none=True)
    total_ms = fields.Float(allow_none=True)
    gpu_ms = fields.Float(allow_none=True)
    load_ms = fields.Float(allow_none=True)


class Request(Answer):
    """One request; times in milliseconds, sizes in bytes."""

    id = fields.String()
    started_at = time()
    token = fields.String()
    user = fields.String()
    dialect = fields.String()
    route = fields.String()
    model = fields.String()
    target = fields.String()
    upstream = fields.String()
    attempts = fields.List(fields.Nested(Attempt))
    stream = fields.Boolean()
    status = fields.Integer()
    state = fields.String()
    error = fields.String()
    prompt_tokens = fields.Integer(allow_none=True)
    cached_tokens = fields.Integer(allow_none=True)
    completion_tokens = fields.Integer(allow_none=True)
    estimated = fields.Boolean()
    queue_ms = fields.Float(allow_none=True)
    load_ms = fields.Float(allow_none=True)
    first_byte_ms = fields.Float(allow_none=True)
    total_ms = fields.Float(allow_none=True)
    gpu_ms = fields.Float(allow_none=True)
    cost = fields.Float(allow_none=True)
    bytes = fields.Integer()


class RequestsQuery(PageQuery):
    """Which requests."""

    state = text("ok, client_gone, upstream_error, timeout, refused, aborted or lost.")
    token = text("Only this one.")
    model = text("Only this one.")
    since = text("A day, month or time.")


class Requests(Answer):
    """A page of requests, newest first."""

    rows = fields.List(fields.Nested(Request))
    cursor = fields.String(
        allow_none=True, metadata={"description": "null: this is the last page."}
    )


@SECTION.route("GET", "/usage", query=UsageQuery, answer=Usage, other_type="text/csv")
def show_usage(query: dict[str, str]) -> Json | Response:
    """Sums of usage, as JSON or CSV."""
    form = query.pop("format")
    report = ask("usage", timezone=current_gateway().settings.records.timezone, **query)
    if form == "json":
        return report
    columns = (*query["by"].split(","), *SUMS)
    response = whole(
        csv_text.render_csv(columns, report["rows"]).encode(),
        content_type="text/csv; charset=utf-8",
    )
    response.headers["Content-Disposition"] = 'attachment; filename="usage.csv"'
    return response


@SECTION.route("GET", "/requests", query=RequestsQuery, answer=Requests)
def list_requests(query: dict[str, Json]) -> Json:
    """Requests that are over, newest first, with their attempts."""
    return ask("requests", timezone=current_gateway().settings.records.timezone, **query)
