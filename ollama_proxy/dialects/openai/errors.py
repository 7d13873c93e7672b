"""OpenAI's error format. Official clients choose the exception by status and read
`message`, `type` and `code`."""

from __future__ import annotations

import orjson

from ollama_proxy.errors import (
    GatewayError,
    ModelNotFound,
    PromptTooLong,
    QuotaExceeded,
    RateLimited,
    UpstreamRefused,
)
from ollama_proxy.gateway import ErrorRenderer
from ollama_proxy.hub import Json
from ollama_proxy.wire import sse_frame

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    504: "timeout_error",
}


class OpenAIErrors(ErrorRenderer):
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """Return the body of an error response."""
        kind = _TYPES.get(error.status) or (
            "api_error" if error.status >= 500 else "invalid_request_error"
        )
        if error.slug == ModelNotFound.slug:
            kind = "invalid_request_error"  # as at OpenAI; `not_found_error` is for paths
        if isinstance(error, RateLimited):  # as at OpenAI, which names what was limited
            kind = "tokens" if error.limit.startswith("tokens") else "requests"
        if isinstance(error, QuotaExceeded):
            kind = error.slug
        # Clients match on it: OpenAI's own code if there is one, else our slug. Errors that an
        # upstream reports in its own words have no code, except for the two that clients check.
        has_code = (
            isinstance(error, PromptTooLong)
            or error.status == 404
            or not isinstance(error, UpstreamRefused)
        )
        code = "invalid_api_key" if error.status == 401 else error.slug if has_code else None
        return orjson.dumps({"error": _fields(error, kind, code)})

    def render_error_frame(self, error: GatewayError) -> bytes:
        """Return the frame that ends a failed stream. No `[DONE]` follows: clients
        raise an exception for it."""
        # A stream has no status that would tell the client's errors from the server's.
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
        return sse_frame({"error": _fields(error, kind, None)})

    def hint_at_address(self, path: str) -> str:
        """Return a hint about the base URL for a path that does not exist."""
        return "" if path.startswith("/v1") else " The base URL of OpenAI's clients ends with /v1."


def _fields(error: GatewayError, kind: str, code: str | None) -> dict[str, Json]:
    text = str(error)
    if isinstance(error, ModelNotFound):
        text = text[:1].upper() + text[1:]
    return {"message": text, "type": kind, "param": error.param, "code": code}
