"""Edits OpenAI's answers that pass through: a model's name, and usage that only the gateway asked for.

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

    __slots__ = ("_name", "_replacement", "_written", "_without_usage")

    def __init__(self, *, name: str | None, without_usage: bool) -> None:
        """`name`: the client's name of the model; None: that of its provider. `without_usage`: the client of a stream
        did not ask for usage."""
        self._name = None if name is None else orjson.dumps(name)
        self._without_usage = without_usage
        #: How the provider writes the name, and its replacement: learned from the first event.
        self._written = self._replacement = _MODEL

    def events(self, events: bytes) -> bytes:
        """Edits whole events."""
        if self._without_usage and USAGE[0] in events:
            events = _remove_usage(events)
        if self._name is None:
            return events
        if events.count(self._written) != events.count(_MODEL) or self._written == _MODEL:
            return b"".join(map(self._edit_event, split_events(events)))
        return events.replace(self._written, self._replacement)

    def document(self, body: bytes, document: Mapping[str, Json]) -> bytes:
        """Edits a single answer; `document` is the parsed `body`."""
        return body if self._name is None else self._rename(body, document)

    def _edit_event(self, event: bytes) -> bytes:
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
        """Replaces the only name in the text; if there may be several, encodes `document` anew."""
        found = _MODEL_VALUE.search(text) if text.count(_MODEL) == 1 else None
        if found is not None:
            self._written, self._replacement = found[0], found[1] + (self._name or b"")
            return text.replace(self._written, self._replacement)
        if "model" not in document:
            return text
        return orjson.dumps({**document, "model": orjson.Fragment(self._name or b"null")})


def _remove_usage(events: bytes) -> bytes:
    """Removes the event that only reports the usage, and the null usage of all others."""
    if is_set(events, USAGE):
        kept: list[bytes] = []
        for event in split_events(events):
            document = read(data_of(event)) if is_set(event, USAGE) else {}
            if document.get("choices") or not document.get("usage"):
                kept.append(event)
        events = b"".join(kept)
    return events.replace(b',"usage":null', b"").replace(b', "usage": null', b"")
