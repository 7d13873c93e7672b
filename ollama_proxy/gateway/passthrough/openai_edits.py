"""What is changed of OpenAI's answers that pass through: a model's name, and usage that only the gateway asked for.

All other bytes stay as the provider wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.wire import USAGE, data_of, is_set, read, split_events

_MODEL = b'"model"'
_MODEL_VALUE = re.compile(rb'("model"\s*:\s*)"(?:[^"\\]|\\.)*"')


class AnswerEdits:
    """The edits of one answer, streamed or single."""

    __slots__ = ("_name", "_renamed", "_said", "_without_usage")

    def __init__(self, *, name: str | None, without_usage: bool) -> None:
        """`name`: what the client calls the model; None: as its provider does. `without_usage`: of a stream whose
        client did not ask for usage."""
        self._name = None if name is None else orjson.dumps(name)
        self._without_usage = without_usage
        #: How the provider writes the name, and what stands there instead: learned from the first event.
        self._said = self._renamed = _MODEL

    def events(self, events: bytes) -> bytes:
        """Whole events, edited."""
        if self._without_usage and USAGE[0] in events:
            events = _without_usage(events)
        if self._name is None:
            return events
        if events.count(self._said) != events.count(_MODEL) or self._said == _MODEL:
            return b"".join(map(self._event, split_events(events)))
        return events.replace(self._said, self._renamed)

    def document(self, body: bytes, document: Mapping[str, Json]) -> bytes:
        """A single answer, edited; `document` is what `body` says."""
        return body if self._name is None else self._rename(body, document)

    def _event(self, event: bytes) -> bytes:
        if _MODEL not in event:
            return event
        if event.count(_MODEL) == 1:
            return self._rename(event, {})
        document = read(data_of(event))
        if "model" not in document:
            return event
        others = [line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data:")]
        return b"".join(others) + b"data: " + self._rename(b"", document) + b"\n\n"

    def _rename(self, text: bytes, document: Mapping[str, Json]) -> bytes:
        """The text with the one name in it replaced; written anew from `document` where there may be more."""
        found = _MODEL_VALUE.search(text) if text.count(_MODEL) == 1 else None
        if found is not None:
            self._said, self._renamed = found[0], found[1] + (self._name or b"")
            return text.replace(self._said, self._renamed)
        if "model" not in document:
            return text
        return orjson.dumps({**document, "model": orjson.Fragment(self._name or b"null")})


def _without_usage(events: bytes) -> bytes:
    """Events without the one that only tells the usage, and without the word of the others that there is none yet."""
    if is_set(events, USAGE):
        kept: list[bytes] = []
        for event in split_events(events):
            document = read(data_of(event)) if is_set(event, USAGE) else {}
            if document.get("choices") or not document.get("usage"):
                kept.append(event)
        events = b"".join(kept)
    return events.replace(b',"usage":null', b"").replace(b', "usage": null', b"")
