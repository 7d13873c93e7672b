"""Edits answers that pass through: a model's name, thinking that the client does not
want, and usage that only the gateway asked for. All other bytes of OpenAI's answers stay
as the provider wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.policy import renamed
from ollama_proxy.upstreams import Headers, Reply, read_all
from ollama_proxy.wire import USAGE, LineSplitter, data_of, is_set, ndjson_frame, read, split_events


class EditedReply:
    """Another reply with each of its JSON objects edited."""

    def __init__(self, reply: Reply, *, target: str, name: str, without_thinking: bool) -> None:
        """`name`: the answer's name of the model that its upstream knows as `target`."""
        self._reply = reply
        self._target, self._name = target, name
        self._without_thinking = without_thinking
        self._pieces: Iterator[bytes | None] | None = None

    @property
    def status(self) -> int:
        """The status of the other reply."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """The headers of the other reply, except for its length."""
        return [(name, value) for name, value in self._reply.headers if name != "content-length"]

    def wait_head(self, wait_s: float | None = None) -> bool:
        """Waits for the head of the other reply."""
        return self._reply.wait_head(wait_s)

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """Returns only whole lines of a stream, and only the whole of a single answer."""
        if self._pieces is None:
            self._pieces = self._edit_pieces(wait_s)
        return next(self._pieces, b"")

    def _edit_pieces(self, wait_s: float | None) -> Iterator[bytes | None]:
        if not any(value.startswith("application/x-ndjson") for _, value in self._reply.headers):
            yield self._edit(read_all(self._reply))
            return
        lines = LineSplitter()
        while (data := self._reply.read_some(wait_s)) != b"":
            edited = b"".join(self._edit(line) + b"\n" for line in lines.feed(data or b""))
            if edited or data is None:
                yield edited or None
        if lines.rest():
            yield self._edit(lines.rest(), is_whole=False)

    def _edit(self, line: bytes, *, is_whole: bool = True) -> bytes:
        """Returns the line with its object edited. A part of an object is dropped: it
        may hold hidden text."""
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line if is_whole else b""
        if not isinstance(document, dict):
            return line
        if self._name != self._target:
            if "model" in document:
                document["model"] = self._name
            if isinstance(document.get("error"), str):
                document["error"] = renamed(document["error"], self._target, self._name)
        if self._without_thinking:
            _remove_thinking(document)
        return ndjson_frame(document).rstrip(b"\n")

    def close(self) -> None:
        """Closes the other reply."""
        self._reply.close()


def _remove_thinking(document: dict[str, Json]) -> None:
    """Removes the thinking, and the log probabilities if they may hold its tokens: those of an
    object with thinking, and of one without text, while the model server still holds back text
    that may be thinking."""
    message = document.get("message")
    parts = [document, message] if isinstance(message, dict) else [document]
    thinking = [part.pop("thinking", None) for part in parts]
    if any(thinking) or not any(part.get("content") or part.get("response") for part in parts):
        document.pop("logprobs", None)


_MODEL = b'"model"'
_MODEL_VALUE = re.compile(rb'("model"\s*:\s*)"(?:[^"\\]|\\.)*"')


class AnswerEdits:
    """The edits of one answer, streamed or single."""

    __slots__ = ("_name", "_replacement", "_written", "_without_usage")

    def __init__(self, *, name: str | None, without_usage: bool) -> None:
        """`name`: the client's name of the model; None: that of its provider. `without_usage`: the
        client of a stream did not ask for usage."""
        self._name = None if name is None else orjson.dumps(name)
        self._without_usage = without_usage
        #: How the provider writes the name, and its replacement: learned from the first event.
        self._written = self._replacement = _MODEL

    def events(self, events: bytes) -> bytes:
        """Edits whole events."""
        if self._without_usage and USAGE[0] in events:
            if is_set(events, USAGE):  # one event only reports the usage; in all others it is null
                kept: list[bytes] = []
                for event in split_events(events):
                    document = read(data_of(event)) if is_set(event, USAGE) else {}
                    if document.get("choices") or not document.get("usage"):
                        kept.append(event)
                events = b"".join(kept)
            events = events.replace(b',"usage":null', b"").replace(b', "usage": null', b"")
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
        others = [
            line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data:")
        ]
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
