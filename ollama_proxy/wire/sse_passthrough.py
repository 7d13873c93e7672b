"""Passed-through server-sent events: held until they are complete, and parsed if they show
how an answer ends. No I/O.

A carriage return alone is not supported as a line end, although the format allows
it: no provider sends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import orjson

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import NO_USAGE, Json, Usage
from ollama_proxy.wire.lines import MAX_LINE_BYTES, StreamEnd

DONE = b"[DONE]"

#: Counts above this are ignored, in tokens.
MAX_TOKENS = 10**15

#: How many of the held bytes may be the start of a blank line.
SEAM_BYTES = 2

#: Names of the cache counts: OpenAI's, DeepSeek's, and LiteLLM's for other APIs.
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_CACHE_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens")

_EVENT_END = re.compile(rb"(?:\r?\n){2,}")


@dataclass(slots=True, eq=False)
class EventCutter:
    """Holds back incomplete events: clients can't use them, and a heartbeat inserted
    into one would break it."""

    _held: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> bytes:
        """The events that are complete now, unchanged; raises UpstreamError for one over 8 MiB."""
        # A long event comes in thousands of pieces, so only the end of the held
        # bytes is searched again.
        seam = bytes(self._held[-SEAM_BYTES:])
        end = len(data)
        if not data.endswith(b"\n\n"):
            text = seam + data
            plain, carried = text.rfind(b"\n\n"), text.rfind(b"\n\r\n")
            ends = (plain + 2 if plain >= 0 else 0, carried + 3 if carried >= 0 else 0)
            end = max(0, max(ends) - len(seam))
        whole = data[:end]
        if end and self._held:
            whole, self._held = bytes(self._held) + whole, bytearray()
        if end < len(data):
            self._held += data[end:]
        if len(self._held) > MAX_LINE_BYTES:
            raise UpstreamError("The model server sent an event that is too long.")
        return whole

    def rest(self) -> bytes:
        """At the end of the input: the last event, which may lack its blank line;
        b"" if it is incomplete."""
        text = bytes(self._held).strip(b"\r\n")
        data = data_of(text)
        return text + b"\n\n" if data == DONE or read(data) else b""


def split_events(events: bytes) -> Iterator[bytes]:
    """Each event, with the blank line that ends it."""
    if b"\r" in events:
        ends = [0, *(end.end() for end in _EVENT_END.finditer(events))]
        yield from (events[start:end] for start, end in pairwise(ends))
        return
    # Much faster than the regular expression.
    *whole, rest = events.split(b"\n\n")
    yield from (event + b"\n\n" for event in whole)
    if rest:
        yield rest


def data_of(event: bytes) -> bytes:
    """The data of an event; b"" for a comment."""
    return b"\n".join(
        line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")
    )


def read(data: bytes) -> dict[str, Json]:
    """The JSON object in the data of an event; empty if the data is anything else."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


FINISH_REASON, USAGE, ERROR = (
    (b'"%b"' % name, b'"%b":null' % name, b'"%b": null' % name)
    for name in (b"finish_reason", b"usage", b"error")
)


def is_set(events: bytes, field: tuple[bytes, bytes, bytes]) -> bool:
    """Whether a field seems to have a value other than null. Quotes inside strings are escaped, so
    only a string that equals the name can cause a false positive; there are no false negatives."""
    name, null, spaced = field
    count = events.count(name)
    return count > 0 and count > events.count(null) + events.count(spaced)


@dataclass(slots=True, eq=False)
class EventTail:
    """Detects the end of OpenAI's answers in passed-through events, and parses only the
    events that may contain it."""

    #: Number of answers to the request.
    answers: int = 1
    #: Number of events so far, each about one token.
    estimated_tokens: int = 0
    #: `[DONE]` was received.
    done: bool = False
    #: The event, or its choice, that reports a failure.
    failure: dict[str, Json] | None = None
    _finished: set[str] = field(default_factory=set)
    _limited: bool = False
    _usage: Usage = NO_USAGE

    def feed(self, events: bytes) -> bytes:
        """Takes complete events; returns those before the first one that reports a failure."""
        self.estimated_tokens += events.count(b"data:")
        if not _may_end(events):
            return events
        passed = 0
        for event in split_events(events):
            data = data_of(event) if _may_end(event) else b""
            if data == DONE:
                self.done = True
            elif data:
                self._note(read(data))
            if self.failure is not None:
                return events[:passed]
            passed += len(event)
        return events

    def _note(self, document: dict[str, Json]) -> None:
        listed = document.get("choices")
        choices = (
            [choice for choice in listed if isinstance(choice, dict)]
            if isinstance(listed, list)
            else []
        )
        # OpenRouter reports a failure in one of the choices.
        self.failure = next(
            (
                part
                for part in (document, *choices)
                if part.get("error") or "error" in (part.get("finish_reason"), part.get("object"))
            ),
            None,
        )
        # Groq and Moonshot have sent usage in other places.
        for part in (document, document.get("x_groq"), *choices):
            if isinstance(part, dict):
                self._usage = read_usage(part.get("usage"), self._usage)
        for choice in choices:
            if reason := choice.get("finish_reason"):
                self._finished.add(str(choice.get("index") or 0))
                self._limited = self._limited or reason == "length"

    def note_whole(self, document: dict[str, Json]) -> None:
        """Takes a single answer instead of a stream."""
        self._note(document)
        self.done = self.failure is None

    @property
    def finished(self) -> bool:
        """Whether the stream is complete: `[DONE]` was received, or every answer
        has its finish reason."""
        return self.done or len(self._finished) >= self.answers

    def end(self) -> StreamEnd:
        """How the stream ended."""
        return StreamEnd(
            self.finished, self.failure is not None, self._usage, limited=self._limited
        )


def _may_end(events: bytes) -> bool:
    """Whether the events may contain an end, a usage or an error; most only have some text."""
    return (
        DONE in events
        or is_set(events, FINISH_REASON)
        or is_set(events, USAGE)
        or is_set(events, ERROR)
    )


def read_usage(usage: Json, known: Usage = NO_USAGE) -> Usage:
    """The counts of a `usage` object, by OpenAI's names in chats or in transcriptions; missing and
    invalid ones are taken from `known`."""
    if not usage or not isinstance(usage, dict):
        return known
    details = usage.get("prompt_tokens_details")
    counts = {**usage, **details} if isinstance(details, dict) else usage
    return Usage(
        _tokens(usage, ("prompt_tokens", "input_tokens"), known.prompt),
        _tokens(usage, ("completion_tokens", "output_tokens"), known.completion),
        _tokens(counts, _CACHED, known.cached),
        _tokens(counts, _CACHE_WRITTEN, known.cache_written),
    )


def _tokens(usage: Mapping[str, Json], names: Sequence[str], known: int | None) -> int | None:
    values = (usage.get(name) for name in names)
    return next(
        (value for value in values if type(value) is int and 0 <= value < MAX_TOKENS), known
    )
