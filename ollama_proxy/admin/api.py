"""The admin API as a whole: a dialect of its own, whose routes and OpenAPI document flask-smorest
builds from the sections."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from flask import Flask, Response
from flask_smorest import Api

from ollama_proxy.admin import (
    audit,
    boxes,
    jobs,
    me,
    models,
    settings,
    status,
    tokens,
    upstreams,
    usage,
)
from ollama_proxy.admin.errors import AdminErrors, ErrorSchema
from ollama_proxy.admin.routes import ADMIN_PATH, Section
from ollama_proxy.dialects import Dialect
from ollama_proxy.gateway import whole
from ollama_proxy.policy import ADMIN
from ollama_proxy.version import VERSION

#: In the order of the document.
SECTIONS: tuple[Section, ...] = tuple(
    module.SECTION
    for module in (status, tokens, usage, models, boxes, jobs, upstreams, settings, audit, me)
)

#: Its errors have a format of their own. No page of another origin may read it.
ADMIN_API = Dialect(
    "admin",
    lambda environ: environ["PATH_INFO"].startswith(ADMIN_PATH),
    AdminErrors(),
    routes=(),
    cors_paths=(),
)

DOCUMENT_PATH, DOCUMENT_ENDPOINT = f"{ADMIN_PATH}openapi.json", "admin-document"

#: See Routes.
SCOPES = {DOCUMENT_ENDPOINT: ADMIN} | {
    name: scope for section in SECTIONS for name, scope in section.scopes.items()
}

#: Its addresses, which are no requests of the gateway's users.
ADMIN_ROUTES = frozenset({DOCUMENT_PATH}.union(*(section.rules for section in SECTIONS)))


class _Api(Api):  # type: ignore[misc]  # it has no types
    ERROR_SCHEMA = ErrorSchema

    def _register_error_handlers(self) -> None:
        """The application has handlers for all errors."""

    def _register_pagination_header(self) -> None:
        """No answer has it."""


def build_api(app: Flask) -> None:
    """Registers the routes of the admin API and that of its OpenAPI document."""
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's own provider; schemas have an order
    for section in SECTIONS:
        app.register_blueprint(section.blueprint)

    def show_document() -> Response:
        """GET /admin/api/openapi.json: this API as an OpenAPI document."""
        return whole(build_document())

    app.add_url_rule(DOCUMENT_PATH, DOCUMENT_ENDPOINT, show_document)


@cache
def build_document() -> bytes:
    """The OpenAPI document, which takes longer to build than the rest of the
    application: hardly anybody asks."""
    api = _Api(Flask("document"), spec_kwargs=_SPEC)
    for section in SECTIONS:
        api.register_blueprint(section.blueprint)
    return orjson.dumps(api.spec.to_dict(), option=orjson.OPT_INDENT_2)


_SPEC: dict[str, Any] = {
    "title": "ollama-proxy admin API",
    "version": VERSION,
    "openapi_version": "3.1.0",
    "info": {"description": "Tokens, usage, models, upstreams and settings of a gateway."},
    "servers": [{"url": "/"}],
    "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    "security": [{"token": []}],
}
