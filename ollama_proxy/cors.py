"""Web pages may call the API routes from the configured origins, never with credentials. Headers by flask-cors."""

from __future__ import annotations

import re

from flask import Flask, Response, request
from flask_cors.core import get_cors_options, set_cors_headers

from ollama_proxy.exchange import REMARKS
from ollama_proxy.gateway import Gateway

API_PATHS = ("/api/", "/v1/", "/anthropic/")

#: What a page may read of an answer's head; the last two are Anthropic's.
EXPOSED = [
    *("X-Request-Id", "Retry-After", *REMARKS.values()),
    *("request-id", "anthropic-version"),
]

MAX_AGE_S = 43200


def origin_pattern(origin: str) -> str | re.Pattern[str]:
    """What flask-cors compares with: a lone `*` and plain origins as they are; elsewhere `*` stands for one or more
    labels of a host or for a port. flask-cors itself would take it for a regular expression without an end."""
    if origin == "*" or "*" not in origin:
        return origin
    return re.compile(re.escape(origin).replace(r"\*", "[A-Za-z0-9.-]+") + r"\Z", re.IGNORECASE)


def install_cors(app: Flask, gateway: Gateway) -> None:
    """Adds the headers to answers of API routes; the origins are read anew for each, because a reload may change
    them."""

    @app.after_request
    def add_headers(response: Response) -> Response:
        if "HTTP_ORIGIN" in request.environ and request.path.startswith(API_PATHS):
            options = get_cors_options(
                app,
                {
                    "origins": [origin_pattern(origin) for origin in gateway.settings.cors.origins],
                    "methods": ["GET", "HEAD", "POST", "DELETE", "OPTIONS"],
                    "expose_headers": EXPOSED,
                    "max_age": MAX_AGE_S,
                    "supports_credentials": False,
                    "allow_private_network": False,
                },
            )
            set_cors_headers(response, options)
        return response
