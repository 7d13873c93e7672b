"""Error responses of the Messages API, as our errors. Pure: bytes in, errors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from ollama_proxy.errors import PromptTooLong, UpstreamAuthError, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Json
from ollama_proxy.upstreams.answer_events import without_keys
from ollama_proxy.upstreams.ollama.versions import error_text

#: Statuses of errors inside a stream, by their type.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

#: Errors about our own key or its account.
_DENIED = (*UpstreamAuthError.statuses, 403)
_DENIED_TYPES = ("authentication_error", "billing_error", "permission_error")

#: The account has no money left, which is a 400.
_NO_CREDIT = "credit balance is too low"

#: Characters of an error that are shown.
MOST_CHARS = 2000

_TOO_LONG = ("prompt is too long", "exceed context limit", "exceeds the context", "context window")


def decode_refusal(
    status: int, data: bytes, retry_after_s: int | None, model: str, secrets: Sequence[str] = ()
) -> UpstreamError:
    """The error for an answer that is not 200, with the provider's text if it has one. `model`: the
    provider's name of the model; `secrets`: texts that no error may show."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    if status in _DENIED:
        return UpstreamAuthError(detail=f"upstream status {status}")
    if not isinstance(document, dict):
        return UpstreamError(detail=f"upstream status {status} without JSON")
    return _make_error(
        status, _fields(document), without_keys(error_text(document), secrets), retry_after_s, model
    )


def decode_error_event(
    document: Mapping[str, Json], model: str, secrets: Sequence[str] = ()
) -> UpstreamError:
    """The error that ends a stream, or that an answer of status 200 contains."""
    fields = _fields(document)
    status = _STATUSES.get(str(fields.get("type")), 500)
    return _make_error(status, fields, without_keys(error_text(document), secrets), None, model)


def _fields(document: Mapping[str, Json]) -> Mapping[str, Json]:
    error = document.get("error")
    return error if isinstance(error, dict) else {}


def _make_error(
    status: int, fields: Mapping[str, Json], text: str, retry_after_s: int | None, model: str
) -> UpstreamError:
    text = text[:MOST_CHARS]
    kind, lowered = str(fields.get("type"))[:100], text.lower()
    if kind in _DENIED_TYPES or _NO_CREDIT in lowered:
        return UpstreamAuthError(
            detail=f"upstream status {status}" + (f": {kind}" if kind in _STATUSES else "")
        )
    if status == 400 and any(sign in lowered for sign in _TOO_LONG):
        return PromptTooLong(text)
    if status == 404 and lowered.startswith("model:"):
        text = f"model '{model}' not found"
    details = fields.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    # A limit on spending takes days to pass, unlike one on the rate.
    final = status == 429 and "spend_limit" in str(code)
    return UpstreamRefused(status, text, retry_after_s=retry_after_s, final=final)
