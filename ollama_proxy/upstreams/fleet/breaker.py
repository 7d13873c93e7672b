"""A circuit breaker: closed, open for a while, half-open for one trial.

Pure but for its clock: monotonic times in seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ollama_proxy.clock import SYSTEM_CLOCK, Clock

#: How long it stays open the first time, and at most after failed trials; in seconds.
FIRST_OPEN_S, LONGEST_OPEN_S = 1.0, 8.0

#: A trial without a result keeps others from trying for this long, in seconds.
TRIAL_S = 10.0

#: After a recovery the load comes back slowly over this time, in seconds.
SLOW_START_S = 10.0

#: The smallest share of the load meanwhile.
FIRST_SHARE = 0.1


@dataclass(slots=True, eq=False)
class Breaker:
    """Opens after so many failures in a row."""

    _threshold: int
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    #: Failures since the last success.
    failures: int = 0
    is_closed: bool = True
    _open_s: float = 0.0
    _open_until: float = 0.0
    _trial_until: float = 0.0
    _recovered_at: float = float("-inf")

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        if self.is_closed:
            return "closed"
        return "open" if self.clock.monotonic() < self._open_until else "half-open"

    def allows(self) -> bool:
        """Whether a request may be sent now: always while closed, one trial at a
        time while half-open."""
        if self.is_closed:
            return True
        now = self.clock.monotonic()
        return now >= self._open_until and now >= self._trial_until

    def begin(self) -> None:
        """Records that a request is sent; while half-open this is the trial."""
        if not self.is_closed and self.state == "half-open":
            self._trial_until = self.clock.monotonic() + TRIAL_S

    def retry_after_s(self) -> float:
        """Seconds until a request may be sent again."""
        return max(0.0, self._open_until - self.clock.monotonic())

    def succeeded(self) -> None:
        """Records a success, which closes it."""
        if not self.is_closed:
            self._recovered_at = self.clock.monotonic()
        self.failures, self.is_closed, self._open_s, self._trial_until = 0, True, 0.0, 0.0

    def failed(self, *, opens: bool = False) -> None:
        """Records a failure. While it is open, one of a request that was in flight already changes
        nothing. `opens`: this one opens it, whatever the number of failures."""
        if opens:
            self.failures = self._threshold
        if self.state == "open":
            return
        self.failures += 1
        if not self.is_closed or self.failures >= self._threshold:
            self.is_closed = False
            self._open_s = min(self._open_s * 2 or FIRST_OPEN_S, LONGEST_OPEN_S)
            # Not all workers at the same moment.
            self._open_until = self.clock.monotonic() + self._open_s * random.uniform(0.9, 1.1)
            self._trial_until = 0.0

    def share(self) -> float:
        """The share of its usual load, between 0.1 and 1, soon after a recovery."""
        since_s = self.clock.monotonic() - self._recovered_at
        return 1.0 if since_s >= SLOW_START_S else max(FIRST_SHARE, since_s / SLOW_START_S)
