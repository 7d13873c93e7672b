"""The thinking of a model before it called tools, for providers that require it again.

Most clients do not send it back. It is kept in memory for a while, by the call that it led to together with the message
before the call: ids of calls alone are not unique at every provider, and thoughts must not reach another conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from ollama_proxy.hub import Json, Message, ToolCall
from ollama_proxy.upstreams.cache import BoundedCache

#: Thoughts that are kept at most, bytes of all of them, and characters of one, roughly.
MOST_KEPT, MOST_BYTES, MOST_CHARS_EACH = 10_000, 16 << 20, 1 << 20


@dataclass(slots=True, frozen=True)
class Thought:
    """The text of the thinking, and the provider's signed details."""

    text: str
    details: Sequence[Json] = ()


class ReasoningCache:
    """Thoughts by the calls that they led to; the oldest are dropped first."""

    def __init__(self, max_bytes: int = MOST_BYTES) -> None:
        self._kept = BoundedCache[bytes, Thought](MOST_KEPT, max_bytes)

    def keep(self, before: Message | None, calls: Sequence[ToolCall], thought: Thought) -> None:
        """Keeps a thought. `before`: the message before the calls."""
        size = len(thought.text) + (len(orjson.dumps(thought.details)) if thought.details else 0)
        if not 0 < size <= MOST_CHARS_EACH:
            return
        for key in _keys(before, calls):
            self._kept.put(key, thought)

    def find(self, before: Message | None, calls: Sequence[ToolCall]) -> Thought | None:
        """The thought that led to some calls, whether they come with their ids or without."""
        return next((thought for key in _keys(before, calls) if (thought := self._kept.get(key))), None)


def _keys(before: Message | None, calls: Sequence[ToolCall]) -> Iterator[bytes]:
    said = (before.role, before.content) if before else ()
    for call in calls[:1]:
        told = orjson.dumps(call.arguments, option=orjson.OPT_SORT_KEYS)
        for name in (call.id, f"{call.name} {told.decode()}"):
            if name:
                yield blake2b(orjson.dumps((said, name)), digest_size=16).digest()
