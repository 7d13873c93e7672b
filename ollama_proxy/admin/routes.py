"""How a module of the admin API declares its routes: each is a function with its schemas, scope and
place in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Never, TypeVar

import flask
from flask_smorest import Blueprint
from marshmallow import RAISE, Schema
from webargs.flaskparser import FlaskParser

from ollama_proxy.dialects import parse_object, read_body
from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway import Gateway, current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.policy import ADMIN

V = TypeVar("V", bound=Callable[..., Any])

#: Where the API is. Every request below it is one of this API, also if the address does not exist.
ADMIN_PATH = "/admin/api/"

#: Largest body, in bytes: that of a configuration file.
MAX_BODY = 1 << 20


class NoParameters(Schema):
    """A misspelt parameter would be without effect."""


class Section:
    """Routes that belong together, below one address."""

    def __init__(self, name: str, description: str, *, path: str = "") -> None:
        """`path`: below ADMIN_PATH."""
        self.blueprint = Blueprint(
            f"admin-{name}",
            __name__,
            url_prefix=f"{ADMIN_PATH}{path}".rstrip("/"),
            description=description,
        )
        self.blueprint.ARGUMENTS_PARSER = RequestParser()
        #: The scope that each endpoint needs; and all addresses.
        self.scopes: dict[str, str] = {}
        self.rules: set[str] = set()

    def route(
        self,
        method: str,
        rule: str = "",
        *,
        answer: type[Schema] | None = None,
        status: int = 200,
        query: type[Schema] | None = None,
        body: type[Schema] | None = None,
        scope: str = ADMIN,
        other_type: str = "",
    ) -> Callable[[V], V]:
        """Declares a route. Its function gets the body and the parameters as their schemas
        load them, then what is in the path, and returns what `answer` dumps: fields that the
        schema does not have never leave the gateway. `other_type`: the content type of text
        that it may return instead."""

        def register(view: V) -> V:
            decorated: Any = view
            options = {} if query is not None else {"as_kwargs": True}
            decorated = self.blueprint.arguments(
                query or NoParameters, location="query", **options
            )(decorated)
            if body is not None:
                decorated = self.blueprint.arguments(body, location="json")(decorated)
            decorated = self.blueprint.response(status, answer)(decorated)
            if other_type:
                decorated = self.blueprint.alt_response(
                    status, schema={"type": "string"}, content_type=other_type
                )(decorated)
            self.blueprint.route(rule, methods=[method], endpoint=view.__name__)(decorated)
            self.scopes[f"{self.blueprint.name}.{view.__name__}"] = scope
            self.rules.add(f"{self.blueprint.url_prefix}{rule}")
            return view

        return register


class RequestParser(FlaskParser):
    """Reads parameters and bodies; whatever is not declared, or not valid, is a
    BadRequest that names it."""

    DEFAULT_UNKNOWN_BY_LOCATION = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": RAISE,
        "json": RAISE,
    }
    DEFAULT_VALIDATION_STATUS = BadRequest.status

    def load_json(self, req: flask.Request, schema: Schema) -> Json:
        """Returns the JSON object of the body, within the limits of all bodies and MAX_BODY."""
        limits = current_gateway().settings.server
        limits = replace(limits, max_body=min(limits.max_body, MAX_BODY))
        return parse_object(read_body(req.environ, limits, current_exchange().call))

    def handle_error(self, error: Any, *_: Any, **__: Any) -> Never:
        """Raises BadRequest for what the schema refuses."""
        complaints = [
            (field, text)
            for part in error.messages.values()
            for field, text in _list_complaints(part)
        ]
        raise BadRequest(
            " ".join(f"{field}: {text}" for field, text in complaints), param=complaints[0][0]
        )


def _list_complaints(messages: Any, field: str = "") -> list[tuple[str, str]]:
    """Every text of marshmallow's, with the dotted name of its field."""
    if not isinstance(messages, dict):
        return [(field[:100], str(text)) for text in messages]
    names = ((f"{field}.{name}" if field else str(name), inner) for name, inner in messages.items())
    return [complaint for name, inner in names for complaint in _list_complaints(inner, name)]


def current_gateway() -> Gateway:
    """The gateway of this application."""
    gateway: Gateway = flask.current_app.extensions["ollama_proxy"]["gateway"]
    return gateway
