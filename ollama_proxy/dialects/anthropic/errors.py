"""Anthropic's error format. Clients choose the exception by status; in a stream
there is only `type`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from ollama_proxy.coordination import Allowance
from ollama_proxy.errors import GatewayError, PromptTooLong
from ollama_proxy.gateway import ErrorRenderer
from ollama_proxy.hub import Json

#: The version of the API, for clients that send none.
VERSION = "2023-06-01"

_VISIBLE = re.compile(r"[!-~]{1,64}")

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

#: Details by field; these make the tool runners of official clients send the whole history.
_DETAILS: dict[str, dict[str, Json]] = {
    "thread": {"details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
}

#: Clients that shorten their history recognize a prompt that does not fit by this text, and
#: read the counts after it.
TOO_LONG = "prompt is too long"


#: Headers of `allowance_fields` that web pages may read.
ALLOWANCE_HEADERS = tuple(
    f"anthropic-ratelimit-{unit}-{name}"
    for unit in ("requests", "tokens")
    for name in ("limit", "remaining", "reset")
)


class AnthropicErrors(ErrorRenderer):
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """Return the body of an error response."""
        return orjson.dumps({"type": "error", "error": _fields(error), "request_id": request_id})

    def head_fields(
        self, request_id: str, environ: Mapping[str, Any]
    ) -> tuple[tuple[str, str], ...]:
        """Return the headers that clients read on every response. The version is the one
        that the client sent."""
        sent = environ.get("HTTP_ANTHROPIC_VERSION") or ""
        return ("request-id", request_id), (
            "anthropic-version",
            sent if _VISIBLE.fullmatch(sent) else VERSION,
        )

    def allowance_fields(self, allowance: Allowance) -> list[tuple[str, str]]:
        """Return the headers that say what is left of the caller's limits."""
        now = datetime.now(UTC)
        return [
            (f"anthropic-ratelimit-{unit}-{name}", value)
            for unit, left in allowance.list_limits()
            for name, value in (
                ("limit", str(left.limit)),
                ("remaining", str(left.remaining)),
                ("reset", f"{now + timedelta(seconds=left.reset_s + 1):%Y-%m-%dT%H:%M:%SZ}"),
            )
        ]

    def hint_at_address(self, path: str) -> str:
        """Return a hint about the base URL for a path that does not exist."""
        is_without_version = path.startswith("/messages")
        return (
            f" The path is /v1{path}: let the base URL of this client end with /v1."
            if is_without_version
            else ""
        )

    def render_error_frame(self, error: GatewayError) -> bytes:
        """Return the frame that ends a failed stream. No `message_stop` follows: clients
        raise an exception for it."""
        return (
            b"event: error\ndata: "
            + orjson.dumps({"type": "error", "error": _fields(error)})
            + b"\n\n"
        )


def _fields(error: GatewayError) -> dict[str, Json]:
    kind = _TYPES.get(error.status) or (
        "api_error" if error.status >= 500 else "invalid_request_error"
    )
    text = str(error)
    if isinstance(error, PromptTooLong) and not text.startswith(TOO_LONG):
        counts = (
            f"{error.tokens} tokens > {error.context} maximum: "
            if error.tokens and error.context
            else ""
        )
        text = f"{TOO_LONG}: {counts}{text}"
    return {"type": kind, "message": text} | _DETAILS.get(error.param or "", {})
