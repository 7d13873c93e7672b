"""How a connection reads a provider's stream: piece by piece, until it is finished or fails."""

from __future__ import annotations

from collections.abc import Iterable

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Done, Event
from ollama_proxy.upstreams.openai.answers import OpenAIReader
from tests.rig import pieces


def read_stream(
    reader: OpenAIReader, body: bytes, size: int | None
) -> tuple[list[Event], UpstreamError | None]:
    """The events of a stream that arrives in pieces of `size` bytes, and the
    failure that follows them."""
    return read_parts(reader, pieces(body, size))


def read_parts(
    reader: OpenAIReader, parts: Iterable[bytes]
) -> tuple[list[Event], UpstreamError | None]:
    """The same of a stream that arrives in these pieces."""
    events: list[Event] = []
    for part in parts:
        more, failure = reader.feed(part)
        events += more
        if failure is not None or (events and isinstance(events[-1], Done)):
            return events, failure
    more, failure = reader.end()
    return events + more, failure
