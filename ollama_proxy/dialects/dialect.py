"""A dialect: one API that clients use, with everything that the rest of the gateway
needs to know about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flask import Blueprint

from ollama_proxy.gateway import ErrorRenderer, Gateway
from ollama_proxy.hub import Json, Model
from ollama_proxy.telemetry import Reader


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """The routes of one blueprint."""

    build_blueprint: Callable[[Gateway], Blueprint]
    #: The scope that each endpoint needs; an endpoint without one needs `manage`.
    scopes: Mapping[str, str]
    #: Endpoints whose requests go to the chat log, with the reader of their answers; None for
    #: answers with vectors.
    readers: Mapping[str, Reader | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ModelRenderer:
    """How a dialect renders models at `/v1/models`, a path that several dialects share."""

    render_models: Callable[[Sequence[Model]], dict[str, Json]]
    render_model: Callable[[Model], dict[str, Json]]


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """An API that clients use, registered by one line in `registry.py`."""

    name: str
    #: Whether a request, given as its WSGI environment, is one of this API, also if
    #: its path does not exist.
    recognises: Callable[[Mapping[str, Any]], bool]
    errors: ErrorRenderer
    routes: tuple[Routes, ...]
    #: Prefixes of the paths that web pages of the configured origins may call.
    cors_paths: tuple[str, ...]
    #: Headers of its responses that such pages may read, besides those of the gateway.
    exposed_headers: tuple[str, ...] = ()
    #: None: the dialect has no models at `/v1/models`.
    models: ModelRenderer | None = None

    def with_routes(self, *routes: Routes) -> Dialect:
        """Return the same dialect with the routes of further directories."""
        return replace(self, routes=self.routes + routes)
