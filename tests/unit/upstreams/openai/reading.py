"""How a connection reads a provider's stream: piece by piece, until it is finished or fails."""

from __future__ import annotations

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Done, Event
from ollama_proxy.upstreams.openai.answers import OpenAIReader
from tests.rig import pieces


def read_stream(
    reader: OpenAIReader, body: bytes, size: int | None
) -> tuple[list[Event], UpstreamError | None]:
    """The events of a stream that arrives in pieces of `size` bytes, and the
    failure that follows them."""
    events: list[Event] = []
    for piece in pieces(body, size):
        more, failure = reader.feed(piece)
        events += more
        if failure is not None or (events and isinstance(events[-1], Done)):
            return events, failure
    more, failure = reader.end()
    return events + more, failure
