"""The thinking of answers that called tools, with its signatures, kept until the results of the calls come back.

A provider requires that thinking again, word for word and signed, before the call that it led to; the clients of most
APIs have no field for a signature. If it is lost, in another worker or after a while, the model continues without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollama_proxy.hub import Json
from ollama_proxy.upstreams.cache import BoundedCache

#: Calls whose thinking is kept at most, and bytes of it.
MOST_KEPT, MOST_BYTES = 10_000, 8 << 20

#: Shorter ids could be the same in two conversations, and one would get the thoughts of the other.
SHORTEST_ID = 16

Block = Mapping[str, Json]


class Thoughts:
    """Blocks of thinking by the id of the call after them."""

    def __init__(self, max_bytes: int = MOST_BYTES) -> None:
        self._kept = BoundedCache[str, Sequence[Block]](MOST_KEPT, max_bytes)

    def keep(self, call_id: str, blocks: Sequence[Block]) -> None:
        """Keeps the blocks before a call; nothing if a client could have made up the id."""
        if not blocks or len(call_id) < SHORTEST_ID:
            return
        self._kept.put(call_id, blocks)

    def of(self, call_id: str) -> Sequence[Block]:
        """The blocks before a call; none if they are not known."""
        return self._kept.get(call_id) or ()
