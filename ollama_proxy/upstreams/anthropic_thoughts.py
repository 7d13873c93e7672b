"""The thinking of answers that called tools, with its signatures, kept until the results of the calls come back.

A provider wants that thinking again, word for word and signed, in front of the call that it led to; the clients of most
APIs have no place for a signature. What is lost, in another worker or after a while, only costs the model its thoughts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollama_proxy.hub import Json

#: What is kept at most, in characters; beyond that the oldest goes.
MOST_CHARS = 8 * 1024 * 1024

#: Ids below this could be the same in two conversations, and one would read the thoughts of the other.
SHORTEST_ID = 16

Block = Mapping[str, Json]


class Thoughts:
    """Blocks of thinking by the id of the call behind them."""

    def __init__(self, most_chars: int = MOST_CHARS) -> None:
        self._most_chars = most_chars
        self._kept: dict[str, Sequence[Block]] = {}
        self._chars = 0

    def keep(self, call_id: str, blocks: Sequence[Block]) -> None:
        """Remembers the blocks in front of a call; nothing where a client could have made up the id."""
        if not blocks or len(call_id) < SHORTEST_ID:
            return
        self._drop(call_id)
        self._kept[call_id] = blocks
        self._chars += _size(blocks)
        while self._chars > self._most_chars:
            self._drop(next(iter(self._kept)))

    def of(self, call_id: str) -> Sequence[Block]:
        """The blocks in front of a call; none where they are not known."""
        return self._kept.get(call_id, ())

    def _drop(self, call_id: str) -> None:
        self._chars -= _size(self._kept.pop(call_id, ()))


def _size(blocks: Sequence[Block]) -> int:
    return sum(len(value) for block in blocks for value in block.values() if isinstance(value, str))
