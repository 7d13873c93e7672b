"""Web pages of the configured origins may read responses of the API routes, never with credentials. Headers by
flask-cors."""

from __future__ import annotations

from flask import Flask, Response, request
from flask_cors.core import get_cors_options, set_cors_headers

from ollama_proxy.gateway import REMARKS, Gateway

API_PATHS = ("/api/", "/v1/", "/anthropic/")

#: What a page may read of an answer's head; the last two are Anthropic's.
EXPOSED = [
    *("X-Request-Id", "Retry-After", *REMARKS.values()),
    *("request-id", "anthropic-version"),
]

MAX_AGE_S = 43200


def install_cors(app: Flask, gateway: Gateway) -> None:
    """Adds the headers to responses of API routes."""

    @app.after_request
    def add_headers(response: Response) -> Response:
        if gateway.snapshot.origins.allowed and "HTTP_ORIGIN" in request.environ and request.path.startswith(API_PATHS):
            options = get_cors_options(
                app,
                {
                    "origins": gateway.snapshot.origins.allowed,
                    "methods": ["GET", "HEAD", "POST", "DELETE", "OPTIONS"],
                    "expose_headers": EXPOSED,
                    "max_age": MAX_AGE_S,
                    "supports_credentials": False,
                    "allow_private_network": False,
                },
            )
            set_cors_headers(response, options)
        return response
