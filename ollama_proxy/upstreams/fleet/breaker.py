"""Whether something that has failed may be asked again: closed, open for a while, half-open for one trial.

Pure but for its clock: monotonic times in seconds.
"""

from __future__ import annotations

import random
import time

#: How long an open one stays so: the first time, and at most after it has failed its trials; in seconds.
FIRST_OPEN_S, LONGEST_OPEN_S = 1.0, 8.0

#: A trial that says nothing for this long no longer keeps others from trying, in seconds.
TRIAL_S = 10.0

#: After a recovery requests come back slowly over this time, in seconds.
SLOW_START_S = 10.0

#: The smallest share while they do.
FIRST_SHARE = 0.1


class Breaker:
    """Opens after `threshold` failures in a row."""

    __slots__ = ("_failures", "_open_s", "_open_until", "_recovered_at", "_threshold", "_trial_until")

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._failures = 0
        self._open_s = 0.0
        self._open_until = 0.0
        self._trial_until = 0.0
        self._recovered_at = float("-inf")

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        if not self._open_s:
            return "closed"
        return "open" if time.monotonic() < self._open_until else "half-open"

    @property
    def is_closed(self) -> bool:
        """Whether nothing is known against it."""
        return not self._open_s

    @property
    def is_suspect(self) -> bool:
        """Whether its last word was a failure."""
        return self._failures > 0

    def allows(self) -> bool:
        """Whether it may be asked now: always while closed, one trial at a time while half-open."""
        if not self._open_s:
            return True
        now = time.monotonic()
        return now >= self._open_until and now >= self._trial_until

    def begin(self) -> None:
        """It is asked now; while half-open this is the trial."""
        if self.state == "half-open":
            self._trial_until = time.monotonic() + TRIAL_S

    def retry_after_s(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._open_until - time.monotonic())

    def succeeded(self) -> None:
        """It has answered."""
        if self._open_s:
            self._recovered_at = time.monotonic()
        self._failures, self._open_s, self._trial_until = 0, 0.0, 0.0

    def failed(self) -> None:
        """It has failed. A failure while it is open, of a request that was on its way, says nothing new."""
        if self.state == "open":
            return
        self._failures += 1
        if self._open_s or self._failures >= self._threshold:
            self._open()

    def trip(self) -> None:
        """Opens it, or keeps it open, whatever the count."""
        self._failures = self._threshold
        if self.state != "open":
            self._open()

    def _open(self) -> None:
        self._open_s = min(self._open_s * 2 or FIRST_OPEN_S, LONGEST_OPEN_S)
        # Not all workers at the same moment.
        self._open_until = time.monotonic() + self._open_s * random.uniform(0.9, 1.1)
        self._trial_until = 0.0

    def share(self) -> float:
        """Between 0.1 and 1: how much of its usual load it takes, soon after a recovery."""
        since_s = time.monotonic() - self._recovered_at
        return 1.0 if since_s >= SLOW_START_S else max(FIRST_SHARE, since_s / SLOW_START_S)
