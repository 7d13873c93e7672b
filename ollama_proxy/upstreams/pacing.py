"""Long loops that let other requests run: without a pause, thousands of messages would block every other request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ollama_proxy.upstreams.call import yield_to_loop

T = TypeVar("T")

#: Items between two pauses: a few milliseconds of work. A conversation of usual length has no pause.
ITEMS_PER_TURN = 500


def pace(items: Iterable[T]) -> Iterator[T]:
    """The items, with a pause for other greenlets after every 500 of them. It costs 30 ns per item."""
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_TURN == 0:
            yield_to_loop()
