"""Web pages of the configured origins may read responses of the API routes, never with credentials. Headers by
flask-cors."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Flask, Response, request
from flask_cors.core import get_cors_options, set_cors_headers

from ollama_proxy.dialects import Dialect
from ollama_proxy.gateway import DIAGNOSTIC_HEADERS, Gateway

MAX_AGE_S = 43200


def install_cors(app: Flask, gateway: Gateway, dialects: Sequence[Dialect]) -> None:
    """Adds the headers to responses of the paths that the dialects name."""
    paths = tuple({path for dialect in dialects for path in dialect.cors_paths})
    exposed = ["X-Request-Id", "Retry-After", *DIAGNOSTIC_HEADERS.values()]
    exposed += [name for dialect in dialects for name in dialect.exposed_headers]

    @app.after_request
    def add_headers(response: Response) -> Response:
        if gateway.snapshot.origins.allowed and "HTTP_ORIGIN" in request.environ and request.path.startswith(paths):
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
        return response
