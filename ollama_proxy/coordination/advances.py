"""Requests of a busy token or user that its limits have admitted in advance: asking the coordinator for each of them
would cost as much as the request itself. They are charged like any other, and given back unless they begin in a moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent

from ollama_proxy.coordination.limits import Allowance

#: How many requests are admitted in advance at most, and how long they are kept, in seconds.
MOST_AHEAD, KEPT_S = 24, 0.05


@dataclass(slots=True, eq=False)
class Advance:
    """What one token or user has in advance; nothing, if it has only been seen a moment ago."""

    #: Ids for exchanges that are admitted, and what each was charged with.
    exchanges: list[str]
    tokens: int
    #: What is left of the limits, without what was charged in advance.
    allowance: Allowance
    ends_s: float
    #: How many are left when one request asks for the next ones, while others use these.
    refill_at: int
    used: int = 0
    #: Some request asks for the next ones.
    is_asked: bool = False


class Advances:
    """The requests that were admitted in advance, by flows."""

    def __init__(self, give_back: Callable[[Sequence[str]], None]) -> None:
        self._give_back = give_back
        self._advances: dict[str, Advance] = {}
        self._is_timed = False

    def take(self, flow: str, tokens: int) -> tuple[str, Allowance] | None:
        """The id of an exchange that is admitted with so many tokens, and what it leaves of the limits; None: the
        coordinator has to be asked."""
        advance = self._advances.get(flow)
        if advance is None or not advance.exchanges or tokens > advance.tokens:
            return None
        if len(advance.exchanges) <= advance.refill_at and not advance.is_asked:
            return None
        advance.used += 1
        return advance.exchanges.pop(), advance.allowance.reduce(advance.used, advance.used * advance.tokens)

    def count_wanted(self, flow: str) -> int:
        """How many further requests whoever asks the coordinator should ask for: some, for one of those that come one
        soon after the other."""
        advance = self._advances.get(flow)
        if advance is None:
            self.add(flow, [], 0, Allowance())
        elif not advance.is_asked:
            advance.is_asked = True
            return MOST_AHEAD
        return 0

    def add(self, flow: str, exchanges: list[str], tokens: int, allowance: Allowance) -> None:
        """Replaces what a flow has in advance."""
        before = self._advances.get(flow)
        ends_s = time.monotonic() + KEPT_S
        self._advances[flow] = Advance(exchanges, tokens, allowance, ends_s, len(exchanges) // 4)
        if before is not None and before.exchanges:
            self._give_back(before.exchanges)
        if not self._is_timed:
            self._is_timed = True
            gevent.spawn_later(KEPT_S, self._give_back_old)

    def clear(self) -> None:
        """Forgets all: the coordinator that had admitted them is gone."""
        self._advances.clear()

    def _give_back_old(self) -> None:
        now = time.monotonic()
        for flow, advance in list(self._advances.items()):
            if advance.ends_s <= now:
                del self._advances[flow]
                if advance.exchanges:
                    self._give_back(advance.exchanges)
        self._is_timed = bool(self._advances)
        if self._is_timed:
            gevent.spawn_later(KEPT_S, self._give_back_old)
