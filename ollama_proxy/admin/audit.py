"""Who changed what."""

from __future__ import annotations

from marshmallow import fields

from ollama_proxy.admin.records import query as ask
from ollama_proxy.admin.routes import Section
from ollama_proxy.admin.schemas import Answer, PageQuery, time
from ollama_proxy.hub import Json

SECTION = Section("audit", "Who changed what.")


class Change(Answer):
    """A change; secrets are masked."""

    at = time()
    by = fields.String(metadata={"description": "The token, or cli:<login>."})
    address = fields.String(data_key="from", attribute="from")
    action = fields.String()
    subject = fields.String()
    before = fields.Raw(allow_none=True)
    after = fields.Raw(allow_none=True)


class Audit(Answer):
    """A page of changes, newest first."""

    rows = fields.List(fields.Nested(Change))
    cursor = fields.String(
        allow_none=True, metadata={"description": "null: this is the last page."}
    )


@SECTION.route("GET", "/audit", query=PageQuery, answer=Audit)
def list_changes(query: dict[str, Json]) -> Json:
    """Changes of tokens, models and upstreams, newest first."""
    return ask("list_audit", **query)
