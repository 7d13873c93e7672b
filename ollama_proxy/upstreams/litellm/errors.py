"""Exceptions of LiteLLM, as our errors.

Its own texts contain addresses, prompts and tracebacks. So the error text is taken from the
provider's answer below; only if there is none, and the request is at fault, LiteLLM's text is used.

Its classes are identified by name: it is an optional package, and is not imported here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from ollama_proxy.errors import (
    PromptTooLong,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.upstreams.answer_events import MOST_REFUSED_BYTES
from ollama_proxy.upstreams.openai.errors import MOST_CHARS, decode_error, decode_refusal

#: Exceptions of the HTTP client, and ours.
TRANSPORT: dict[str, type[UpstreamError]] = {
    "ConnectError": UpstreamConnect,
    "ConnectTimeout": UpstreamConnect,
    "PoolTimeout": UpstreamConnect,
    "UnsupportedProtocol": UpstreamConnect,
    "ReadTimeout": UpstreamTimeout,
    "WriteTimeout": UpstreamTimeout,
    "ReadError": UpstreamCut,
    "WriteError": UpstreamCut,
    "RemoteProtocolError": UpstreamCut,
}

#: How far a chain of exceptions is followed.
DEPTH = 12

#: LiteLLM's prefixes of a text: its own class, that of the provider, one after the other.
_LABEL = re.compile(r"^(litellm\.)?\w*(Error|Exception)( \w*Error)?\s*[:-]\s+")

#: Its suffixes of a text.
_BEHIND = re.compile(r"Traceback \(most recent call last\)|\bTo drop \w+|\bLearn more: ")


def decode_exception(
    raised: Exception, *, model: str, secrets: Sequence[str] = ()
) -> UpstreamError:
    """The error for an exception of a call to LiteLLM. `secrets`: texts that no error may show."""
    chain = list(_follow_causes(raised))
    names = [type(each).__name__ for each in chain]
    for each, name in zip(chain, names, strict=True):
        if name == "HTTPStatusError":
            response: Any = getattr(each, "response", None)
            try:
                body = bytes(response.content[:MOST_REFUSED_BYTES])
            except RuntimeError:
                body = b""  # the HTTP client did not read it
            headers = [(key.lower(), value) for key, value in response.headers.items()]
            return decode_refusal(
                int(response.status_code), body, headers, model=model, secrets=secrets
            )
    for name in names:
        if name in TRANSPORT:
            return TRANSPORT[name](detail=f"{names[0]} after {name}")
    for each, name in zip(chain, names, strict=True):
        if name == "APIError" and isinstance(getattr(each, "body", None), dict):
            return decode_error({"error": each.body}, model=model, secrets=secrets)  # type: ignore[attr-defined]
    return _decode_own_error(raised, names, model, secrets)


def _follow_causes(raised: BaseException | None) -> Iterator[BaseException]:
    for _ in range(DEPTH):
        if raised is None:
            return
        yield raised
        raised = (
            getattr(raised, "original_exception", None) or raised.__cause__ or raised.__context__
        )


def _decode_own_error(
    raised: Exception, names: Sequence[str], model: str, secrets: Sequence[str]
) -> UpstreamError:
    """The error for an exception of LiteLLM itself, before a request or about an answer
    that it can't decode."""
    text, status = str(getattr(raised, "message", "")), getattr(raised, "status_code", None)
    beneath = " after ".join(dict.fromkeys(names))
    if "Timeout" in names:
        return UpstreamTimeout(detail=beneath)
    if "LLM Provider NOT provided" in text:
        return UpstreamRefused(404, f"model '{model}' not found")
    if "AuthenticationError" in names or "Missing credentials" in text:
        return UpstreamAuthError(
            detail=f"LiteLLM has no key for the provider of this model: {beneath}"
        )
    if not isinstance(status, int) or not 400 <= status < 500:
        return UpstreamError(detail=f"LiteLLM: {beneath}")
    said = strip_labels(text[: 2 * MOST_CHARS])[:MOST_CHARS]
    if "ContextWindowExceededError" in names:
        return PromptTooLong(said)
    return decode_refusal(
        status, orjson.dumps({"error": {"message": said}}), model=model, secrets=secrets
    )


def strip_labels(text: str) -> str:
    """A text of LiteLLM without the class names before it, and without the advice for
    programmers after it."""
    text = _BEHIND.split(text, maxsplit=1)[0]
    while match := _LABEL.match(text):
        text = text[match.end() :]
    return text.strip()
