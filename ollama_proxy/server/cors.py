"""Web pages of the configured origins may read responses of the API routes, never with credentials.
Headers by flask-cors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask import Flask, Request, Response
from flask_cors.core import get_cors_options, set_cors_headers

from ollama_proxy.dialects import Dialect
from ollama_proxy.gateway import ALLOWANCE_HEADERS, DIAGNOSTIC_HEADERS, Gateway

MAX_AGE_S = 43200


def build_cors(
    app: Flask, gateway: Gateway, dialects: Sequence[Dialect]
) -> Callable[[Request, Response], None]:
    """Returns a function that adds the headers to the response of a request with an Origin,
    on the dialects' paths."""
    paths = tuple({path for dialect in dialects for path in dialect.cors_paths})
    exposed = ["X-Request-Id", "Retry-After", *ALLOWANCE_HEADERS, *DIAGNOSTIC_HEADERS.values()]
    exposed += [name for dialect in dialects for name in dialect.exposed_headers]

    def add_headers(request: Request, response: Response) -> None:
        if gateway.snapshot.origins.allowed and request.path.startswith(paths):
            options = get_cors_options(
                app,
                {
                    "origins": gateway.snapshot.origins.allowed,
                    "methods": ["GET", "HEAD", "POST", "DELETE", "OPTIONS"],
                    "expose_headers": exposed,
                    "max_age": MAX_AGE_S,
                    "supports_credentials": False,
                    "allow_private_network": False,
                },
            )
            set_cors_headers(response, options)

    return add_headers
