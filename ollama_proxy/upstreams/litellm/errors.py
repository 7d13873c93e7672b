"""What LiteLLM raises, as our errors.

Its own texts have addresses, prompts and tracebacks in them. So what the provider said is taken from the answer that
lies beneath; only where there is none, and the request is at fault, LiteLLM's word is passed on.

Its classes are known by name: it is an optional package, and is not imported here.
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
from ollama_proxy.upstreams.openai.errors import MOST_CHARS, error_in, refused

#: Exceptions of the HTTP client, and what they mean.
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

#: Exceptions that lie beneath one another are followed so far.
DEPTH = 12

#: What LiteLLM puts in front of a text: its own class, that of the provider, one behind the other.
_LABEL = re.compile(r"^(litellm\.)?\w*(Error|Exception)( \w*Error)?\s*[:-]\s+")

#: What it puts behind one.
_BEHIND = re.compile(r"Traceback \(most recent call last\)|\bTo drop \w+|\bLearn more: ")


def error_of(raised: Exception, *, model: str, secrets: Sequence[str] = ()) -> UpstreamError:
    """What an exception of a call to LiteLLM amounts to. `secrets`: texts that nobody is to see."""
    chain = list(_chain(raised))
    names = [type(each).__name__ for each in chain]
    for each, name in zip(chain, names, strict=True):
        if name == "HTTPStatusError":
            response = getattr(each, "response", None)
            return refused(*_answer(response), model=model, secrets=secrets)
    for name in names:
        if name in TRANSPORT:
            return TRANSPORT[name](detail=f"{names[0]} after {name}")
    for each, name in zip(chain, names, strict=True):
        if name == "APIError" and isinstance(getattr(each, "body", None), dict):
            return error_in({"error": each.body}, model=model, secrets=secrets)  # type: ignore[attr-defined]
    return _its_own(raised, names, model, secrets)


def _chain(raised: BaseException | None) -> Iterator[BaseException]:
    for _ in range(DEPTH):
        if raised is None:
            return
        yield raised
        raised = getattr(raised, "original_exception", None) or raised.__cause__ or raised.__context__


def _answer(response: Any) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Status, body and headers of the provider's answer."""
    try:
        body = bytes(response.content[:MOST_REFUSED_BYTES])
    except RuntimeError:
        body = b""  # the client gave up before it had read it
    return int(response.status_code), body, [(name.lower(), value) for name, value in response.headers.items()]


def _its_own(raised: Exception, names: Sequence[str], model: str, secrets: Sequence[str]) -> UpstreamError:
    """What LiteLLM says before it asks anybody, or of an answer that it can't read."""
    text, status = str(getattr(raised, "message", "")), getattr(raised, "status_code", None)
    beneath = " after ".join(dict.fromkeys(names))
    if "Timeout" in names:
        return UpstreamTimeout(detail=beneath)
    if "LLM Provider NOT provided" in text:
        return UpstreamRefused(404, f"model '{model}' not found")
    if "AuthenticationError" in names or "Missing credentials" in text:
        return UpstreamAuthError(detail=f"LiteLLM has no key for the provider of this model: {beneath}")
    if not isinstance(status, int) or not 400 <= status < 500:
        return UpstreamError(detail=f"LiteLLM: {beneath}")
    said = plain(text[: 2 * MOST_CHARS])[:MOST_CHARS]
    if "ContextWindowExceededError" in names:
        return PromptTooLong(said)
    return refused(status, orjson.dumps({"error": {"message": said}}), model=model, secrets=secrets)


def plain(text: str) -> str:
    """A text of LiteLLM without the classes in front of it, and without what is for its programmers behind it."""
    text = _BEHIND.split(text, maxsplit=1)[0]
    while match := _LABEL.match(text):
        text = text[match.end() :]
    return text.strip()
