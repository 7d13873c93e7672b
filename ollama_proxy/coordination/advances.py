"""Requests of a busy token or user that its limits have admitted in advance: asking the coordinator
for each of them would cost as much as the request itself. They are charged like any other, and
given back unless they begin in a moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.kept_slots import KEPT_S
from ollama_proxy.coordination.limits import Allowance

#: How many requests are admitted in advance at most.
MOST_AHEAD = 100


@dataclass(slots=True, eq=False)
class Advance:
    """What one token or user has in advance; nothing, if it has only been seen a moment ago."""

    #: The coordinator's id for all of its requests, how many have not begun, and what
    #: each was charged with.
    exchange: str
    left: int
    tokens: int
    #: What is left of the limits, without what was charged in advance.
    allowance: Allowance
    ends_s: float
    #: How many are left when one request asks for the next ones, while others use these.
    refill_at: int
    #: Some request asks for the next ones.
    is_asked: bool = False
    begun: int = 0
    running: int = 0
    #: Since the last report: requests that have ended, the tokens that they have used,
    #: requests that will not begin.
    ended: int = 0
    spent: int = 0
    unused: int = 0


#: What the coordinator is told of an advance: its id, requests that have ended, their tokens,
#: requests that will not begin, and whether none is left.
Report = tuple[str, int, int, int, bool]


@dataclass(slots=True, eq=False)
class Advances:
    """The requests that were admitted in advance, by flows."""

    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    _advances: dict[str, Advance] = field(default_factory=dict)
    _unreported: dict[Advance, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether `report` has to be called."""
        return bool(self._advances or self._unreported)

    def take(self, flow: str, tokens: int) -> tuple[Advance, Allowance] | None:
        """Begins a request that was admitted with so many tokens, and returns what it leaves of the
        limits; None: the coordinator has to be asked."""
        advance = self._advances.get(flow)
        if advance is None or not advance.left or tokens > advance.tokens:
            return None
        if advance.left <= advance.refill_at and not advance.is_asked:
            return None
        advance.left -= 1
        advance.begun += 1
        advance.running += 1
        return advance, advance.allowance.reduce(advance.begun, advance.begun * advance.tokens)

    def end(self, advance: Advance, tokens: int | None) -> None:
        """Ends a request that has used so many tokens; None: it was refused, and does not count."""
        advance.running -= 1
        if tokens is None:
            advance.unused += 1
        else:
            advance.ended += 1
            advance.spent += tokens
        self._unreported[advance] = None

    def count_wanted(self, flow: str) -> int:
        """How many further requests whoever asks the coordinator should ask for: some, for one of
        those that come one soon after the other."""
        advance = self._advances.get(flow)
        if advance is None:
            self.add(flow, "", 0, 0, Allowance())
        elif not advance.is_asked:
            advance.is_asked = True
            return MOST_AHEAD
        return 0

    def add(self, flow: str, exchange: str, count: int, tokens: int, allowance: Allowance) -> None:
        """Replaces what a flow has in advance."""
        if before := self._advances.get(flow):
            self._drop(before)
        self._advances[flow] = Advance(
            exchange, count, tokens, allowance, self.clock.monotonic() + KEPT_S, count // 4
        )

    def report(self) -> list[Report]:
        """What has changed since the last report. What has not begun in a while is given back."""
        now = self.clock.monotonic()
        for flow, advance in list(self._advances.items()):
            if advance.ends_s <= now:
                del self._advances[flow]
                self._drop(advance)
        changed, self._unreported = self._unreported, {}
        reports: list[Report] = []
        for each in changed:
            reports.append(
                (
                    each.exchange,
                    each.ended,
                    each.spent,
                    each.unused,
                    not (each.left or each.running),
                )
            )
            each.ended = each.spent = each.unused = 0
        return reports

    def _drop(self, advance: Advance) -> None:
        """Gives back what has not begun."""
        if advance.left:
            advance.unused += advance.left
            advance.left = 0
            self._unreported[advance] = None
