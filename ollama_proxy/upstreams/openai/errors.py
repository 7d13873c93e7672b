"""Error responses of providers, in any of the shapes in use, as our errors. Pure.

A provider that refuses this gateway's key or balance is never the client's 401: clients would
ask their users to sign in.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import orjson

from ollama_proxy.errors import (
    PromptTooLong,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.hub import Json
from ollama_proxy.upstreams.answer_events import without_keys
from ollama_proxy.upstreams.base import Headers

#: Characters that are shown of an error of unknown shape, and of any.
SHOWN_CHARS, MOST_CHARS = 200, 2000

#: Characters that are read: a key at the end of the shown text is recognised as a whole.
READ_CHARS = 2 * MOST_CHARS

#: Code or text of an error about a balance that is used up.
_POOR = (
    "arrearage",
    "accountoverdue",
    "insufficient_balance",
    "insufficient balance",
    "billing_hard_limit",
    "1113",
)

#: For a quota that a short wait does not restore.
_QUOTA_USED_UP = (
    *(
        "insufficient_quota",
        "exceeded your current quota",
        "quota_exceeded",
        "allocationquota",
        "freetieronly",
    ),
    *_POOR,
)

#: For a prompt that does not fit.
_TOO_LONG = (
    *(
        "context_length_exceeded",
        "maximum context length",
        "context length",
        "context window",
        "context size",
    ),
    *(
        "prompt is too long",
        "input is too long",
        "range of input length",
        "exceed context",
        "too many input tokens",
    ),
    *("maximum input length", "max_model_len", "input must have less than"),
)

#: For content that a provider rejects.
_CENSORED = (
    "content_policy",
    "content policy",
    "inspection",
    "moderation",
    "sensitive",
    "flagged",
    "safety",
)

#: For a missing model, or a missing endpoint of one.
_UNKNOWN_MODEL = re.compile(r"model|endpoint|deployment", re.IGNORECASE)
_NO_MODEL = re.compile(r"model_?not_?(found|open)|\bmodel\b.{0,100}\bnot (exist|found)")
_MISSING = re.compile(
    r"not.?(exist|found|open|available|supported)|does.?n.t exist|no such|unknown|invalid", re.I
)

#: The status that an error without one would have had, by its code and text.
_STATUS_SIGNS = (
    (429, ("rate_limit", "rate limit", "ratelimit", "throttling", *_QUOTA_USED_UP)),
    (401, ("authentication", "invalid_api_key", "unauthorized", "permission")),
    (400, ("invalid_request", "bad_request", "badrequest", *_TOO_LONG, *_CENSORED)),
)

#: Statuses that may be different a moment later.
_FAULTS = (408, 429, *range(500, 600))

#: Overload keeps its status, so that clients can wait; every other fault is a bad gateway.
_OVERLOAD = {429: 429, 503: 503, 529: 503}


def decode_refusal(
    status: int, data: bytes, headers: Headers = (), *, model: str = "", secrets: Sequence[str] = ()
) -> UpstreamError:
    """The error for an answer that is not 200. `model`: the provider's name of the requested model;
    `secrets`: texts that no error may show."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data[: SHOWN_CHARS * 4].decode("utf-8", "replace").strip()
        document = text[:SHOWN_CHARS] if text and not text.startswith("<") else None
    if document is not None:
        return _refusal(status, document, _waits_s(headers), model, secrets)
    # A page, or nothing at all: most likely from a proxy in front of the provider.
    if status in (*UpstreamAuthError.statuses, 403):
        return UpstreamAuthError(detail=f"upstream status {status}")
    if status in _FAULTS:
        return _fault(
            status, f"The model server answered {_phrase(status)}.", "", _waits_s(headers)
        )
    return UpstreamError(detail=f"upstream status {status} without JSON: is its base_url right?")


def decode_error(
    document: Mapping[str, Json], *, model: str = "", secrets: Sequence[str] = ()
) -> UpstreamError:
    """The error inside an answer with status 200, or inside a stream that has begun; its
    status is that of its code."""
    code, kind = _code_and_type(document)
    if re.fullmatch("[45][0-9][0-9]", code):
        status = int(code)
    else:
        words = f"{code} {kind} {text_of(document)}".lower()
        is_unknown_model = _UNKNOWN_MODEL.search(words) and _MISSING.search(words)
        otherwise = 404 if is_unknown_model else 500
        status = next((status for status, signs in _STATUS_SIGNS if _has(words, signs)), otherwise)
    return _refusal(status, document, None, model, secrets)


def _refusal(
    status: int, document: Json, wait_s: int | None, model: str, secrets: Sequence[str]
) -> UpstreamError:
    text = without_keys(
        text_of(document) or f"The model server answered {_phrase(status)}.", secrets
    )[:MOST_CHARS]
    code, kind = _code_and_type(document)
    words = f"{code} {kind} {text}".lower()
    if status == 404 or (status in (400, 403) and _NO_MODEL.search(words)):
        if not _UNKNOWN_MODEL.search(words):
            return UpstreamError(
                detail="upstream status 404, and not about a model: is its base_url right?"
            )
        return UpstreamRefused(404, f"model '{model}' not found" if model else text)
    if _is_about_us(status, words):
        return UpstreamAuthError(
            detail=f"upstream status {status}: {without_keys(code, secrets)[:60]}"
        )
    if status in _FAULTS:
        return _fault(status, text, words, wait_s)
    return PromptTooLong(text) if _has(words, _TOO_LONG) else UpstreamRefused(400, text)


def _fault(status: int, text: str, words: str, wait_s: int | None) -> UpstreamError:
    """The error for a status that may be different a moment later."""
    if status in (408, 504):
        return UpstreamTimeout(detail=f"upstream status {status}")
    final = status == 429 and _has(words, _QUOTA_USED_UP)
    return UpstreamRefused(_OVERLOAD.get(status, 502), text, retry_after_s=wait_s, final=final)


def _is_about_us(status: int, words: str) -> bool:
    """Whether the provider refuses our key or balance, not the request."""
    if status in UpstreamAuthError.statuses:
        return True
    if status == 403:
        return not _has(words, _CENSORED)
    return status == 400 and _has(words, (*_POOR, "invalid_api_key"))


def _has(words: str, signs: Sequence[str]) -> bool:
    return any(sign in words for sign in signs)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _waits_s(headers: Headers) -> int | None:
    """Seconds until the next attempt, rounded up; the header has seconds,
    milliseconds or a date."""
    found = {
        name: value.strip() for name, value in headers if name in ("retry-after", "retry-after-ms")
    }
    for name, unit in (("retry-after", 1.0), ("retry-after-ms", 1000.0)):
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", found.get(name, "")):
            return min(-int(-float(found[name]) // unit), 999_999)
    try:
        left_s = parsedate_to_datetime(found["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return max(0, min(round(left_s), 999_999))


def text_of(document: Json) -> str:
    """The text of an error, in whatever field, as far as it is read; "" if it has none."""
    if isinstance(document, str):
        return document.strip()[:SHOWN_CHARS]
    if not isinstance(document, dict):
        return ""
    error = document.get("error")
    if isinstance(error, dict):
        return _sentence(error.get("message")) or text_of(error)
    for name in ("error", "message"):
        if isinstance(document.get(name), str) and document[name].strip():
            return _sentence(document[name])
    return _listed(document.get("detail")) or _listed(document.get("errors"))


def _listed(value: Json) -> str:
    """A text, or the texts of the items of a list."""
    if isinstance(value, str):
        return _sentence(value)
    items = value if isinstance(value, list) else []
    texts = [
        item.get("msg") or item.get("message") if isinstance(item, dict) else item for item in items
    ]
    return "; ".join(text for text in texts if isinstance(text, str) and text)[:READ_CHARS]


def _sentence(value: Json) -> str:
    """A text, also one that is itself an error in JSON, such as one that passed
    through two providers."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if text.startswith("{"):
        try:
            return text_of(orjson.loads(text)) or text[:READ_CHARS]
        except orjson.JSONDecodeError:
            return text[:READ_CHARS]
    return text[:READ_CHARS]


def _code_and_type(document: Json) -> tuple[str, str]:
    """Code and type of an error, at either level; "" for a missing one."""
    inner = document.get("error") if isinstance(document, dict) else None
    fields = inner if isinstance(inner, dict) else document if isinstance(document, dict) else {}
    return str(fields.get("code") or ""), str(fields.get("type") or "")
