"""Server-sent events that pass through: cut behind whole ones, and read where they tell how an answer ends. No I/O.

Lone carriage returns, which the format allows as ends of lines, are not: no provider sends them.
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

#: A count above this is no count, in tokens.
MAX_TOKENS = 10**15

#: So much of what is held may be the beginning of a blank line.
SEAM_BYTES = 2

#: Names of the cache counts: OpenAI's, DeepSeek's, and LiteLLM's for other APIs.
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_CACHE_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens")

_EVENT_END = re.compile(rb"(?:\r?\n){2,}")


@dataclass(slots=True, eq=False)
class EventCutter:
    """Holds back what is not yet a whole event: a client can't use it, and nothing may be said inside of one."""

    _held: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now, as they came; raises UpstreamError for one over 8 MiB."""
        # A long event comes in thousands of pieces: only where a blank line may begin is what came before looked at.
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
        """At the end of the input: the last event, which may come without the blank line; b"" for a part of one."""
        text = bytes(self._held).strip(b"\r\n")
        data = data_of(text)
        return text + b"\n\n" if data == DONE or read(data) else b""


def split_events(events: bytes) -> Iterator[bytes]:
    """One event after the other, each with the blank line that ends it."""
    if b"\r" in events:
        ends = [0, *(end.end() for end in _EVENT_END.finditer(events))]
        yield from (events[start:end] for start, end in pairwise(ends))
        return
    # Much faster than an expression that looks at every byte.
    *whole, rest = events.split(b"\n\n")
    yield from (event + b"\n\n" for event in whole)
    if rest:
        yield rest


def data_of(event: bytes) -> bytes:
    """What an event carries; b"" for a comment."""
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))


def read(data: bytes) -> dict[str, Json]:
    """The object that an event carries; an empty one where it carries something else."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


FINISH_REASON, USAGE, ERROR = (
    (b'"%b"' % name, b'"%b":null' % name, b'"%b": null' % name) for name in (b"finish_reason", b"usage", b"error")
)


def is_set(events: bytes, field: tuple[bytes, bytes, bytes]) -> bool:
    """Whether a field seems to be there with another value than null. A text can't look like it: its quotes are
    escaped; one that is only the field's name can, so the answer may be a false yes, never a false no."""
    name, null, spaced = field
    count = events.count(name)
    return count > 0 and count > events.count(null) + events.count(spaced)


class EventTail:
    """Notes the end of OpenAI's answers from the events that pass, and parses only those that tell of it."""

    __slots__ = ("_answers", "_finished", "_limited", "_usage", "done", "failure", "estimated_tokens")

    def __init__(self, answers: int = 1) -> None:
        """`answers`: how many are made beside each other."""
        self._answers = answers
        self._finished: set[str] = set()
        self._limited = False
        self._usage = Usage()
        #: Events so far, about a token each.
        self.estimated_tokens = 0
        #: `[DONE]` was seen.
        self.done = False
        #: What reports a failure: an event, or one of its choices.
        self.failure: dict[str, Json] | None = None

    def feed(self, events: bytes) -> bytes:
        """Takes whole events; gives those that come before the report of a failure."""
        self.estimated_tokens += events.count(b"data:")
        if not _tell(events):
            return events
        passed = 0
        for event in split_events(events):
            data = data_of(event) if _tell(event) else b""
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
        choices = [choice for choice in listed if isinstance(choice, dict)] if isinstance(listed, list) else []
        # OpenRouter reports a failure in one of the choices.
        self.failure = next(
            (
                part
                for part in (document, *choices)
                if part.get("error") or "error" in (part.get("finish_reason"), part.get("object"))
            ),
            None,
        )
        # Groq and Moonshot have had places of their own for it.
        for part in (document, document.get("x_groq"), *choices):
            if isinstance(part, dict):
                self._usage = read_usage(part.get("usage"), self._usage)
        for choice in choices:
            if reason := choice.get("finish_reason"):
                self._finished.add(str(choice.get("index") or 0))
                self._limited = self._limited or reason == "length"

    def note_whole(self, document: dict[str, Json]) -> None:
        """Takes a single answer."""
        self._note(document)
        self.done = self.failure is None

    @property
    def finished(self) -> bool:
        """Whether nothing is missing: the end was said, or every answer has its reason to end."""
        return self.done or len(self._finished) >= self._answers

    def end(self) -> StreamEnd:
        """How the stream ended, for what is kept of it."""
        return StreamEnd(self.finished, self.failure is not None, self._usage, limited=self._limited)


def _tell(events: bytes) -> bool:
    """Whether anything in the events may tell of an end; most hold a few words and nothing else."""
    return DONE in events or is_set(events, FINISH_REASON) or is_set(events, USAGE) or is_set(events, ERROR)


def read_usage(usage: Json, known: Usage = NO_USAGE) -> Usage:
    """The counts of a `usage` object; what it lacks, and what is no number of tokens, stays as in `known`."""
    if not usage or not isinstance(usage, dict):
        return known
    details = usage.get("prompt_tokens_details")
    counts = {**usage, **details} if isinstance(details, dict) else usage
    return Usage(
        _tokens(usage, ("prompt_tokens",), known.prompt),
        _tokens(usage, ("completion_tokens",), known.completion),
        _tokens(counts, _CACHED, known.cached),
        _tokens(counts, _CACHE_WRITTEN, known.cache_written),
    )


def _tokens(usage: Mapping[str, Json], names: Sequence[str], known: int | None) -> int | None:
    values = (usage.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 <= value < MAX_TOKENS), known)
