"""Ollama's error format: `{"error": "text"}`, always a string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ollama_proxy.errors import MISSING_TOKEN_IN_ADDRESS, GatewayError, MissingToken
from ollama_proxy.gateway import ErrorRenderer
from ollama_proxy.wire import ndjson_frame

#: The user agent of Ollama's command line and its Go library; those of Python
#: and JavaScript differ.
_OLLAMA_CLI = "ollama/"


class NativeErrors(ErrorRenderer):
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """Return the body of an error response."""
        return orjson.dumps({"error": str(error)})

    def render_error_frame(self, error: GatewayError) -> bytes:
        """Return the frame that ends a failed stream. No `done` line follows it."""
        return ndjson_frame({"error": str(error)})

    def hint_at_address(self, path: str) -> str:
        """Return a hint about the base URL for a path that does not exist."""
        return (
            " The base URL of Ollama's clients has no /v1." if path.startswith("/v1/api/") else ""
        )

    def for_client(
        self, error: GatewayError, environ: Mapping[str, Any]
    ) -> tuple[GatewayError, int]:
        """Return the error and the status for this client. Ollama's command line gets 403
        instead of 401: it never prints the text of a 401, but asks the user to sign in to Ollama
        or to read the server's log. It can't send headers, so the text explains how to put the
        token into the address."""
        if error.status != 401 or not environ.get("HTTP_USER_AGENT", "").startswith(_OLLAMA_CLI):
            return error, error.status
        return (
            MissingToken(MISSING_TOKEN_IN_ADDRESS) if isinstance(error, MissingToken) else error
        ), 403
