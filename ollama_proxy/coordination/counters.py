"""The counters of limits: kept in this process, or in Redis for all machines."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ollama_proxy.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:  # without Redis, its client is not needed
    from ollama_proxy.coordination.redis_counters import CounterStorage

#: Seconds between two searches for counters that are over; no sliding window is longer.
SWEEP_S = 60.0


@dataclass(slots=True)
class MemoryStorage:
    """Counts as the MemoryStorage of the package `limits` does, at a fraction of its cost: that one
    has a lock for each counter, for threads, and starts a thread to remove what is over."""

    clock: Clock = SYSTEM_CLOCK
    #: Counters, and when each of them ends.
    _counters: dict[str, tuple[int, float]] = field(default_factory=dict)
    #: The end of each sliding window, the count of the one before it, and its own.
    _windows: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    _swept_s: float = -math.inf

    def get(self, key: str) -> int:
        """A counter; 0: there is none."""
        count, ends_s = self._counters.get(key, (0, -math.inf))
        return count if self.clock.monotonic() < ends_s else 0

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Adds to a counter, which a new one is for `expiry` seconds. Returns the sum."""
        now = self.clock.monotonic()
        self._sweep(now)
        count, ends_s = self._counters.get(key, (0, -math.inf))
        count, ends_s = (count + amount, ends_s) if now < ends_s else (amount, now + expiry)
        self._counters[key] = count, ends_s
        return count

    def raise_to(self, key: str, expiry: int, amount: int) -> None:
        """Makes a counter at least so high, which a new one is for `expiry` seconds."""
        if missing := max(0, amount - self.get(key)):
            self.incr(key, expiry, missing)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count of the last window of `expiry` seconds, for how many it fades; that of this
        one, and for how many that is kept."""
        now = self.clock.monotonic()
        ends_s, previous, current = self._find_window(key, expiry, now)
        rest_s = ends_s - now
        return previous, rest_s if previous else 0.0, current, rest_s + expiry

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Adds to the count of this window, unless both together would exceed the limit."""
        now = self.clock.monotonic()
        ends_s, previous, current = self._find_window(key, expiry, now)
        if int(previous * (ends_s - now) / expiry) + current + amount > limit:
            return False
        self._sweep(now)
        self._windows[key] = ends_s, previous, current + amount
        return True

    def _find_window(self, key: str, expiry: int, now: float) -> tuple[float, int, int]:
        ends_s, previous, current = self._windows.get(key, (-math.inf, 0, 0))
        if now < ends_s:
            return ends_s, previous, current
        return (now // expiry + 1) * expiry, current if now < ends_s + expiry else 0, 0

    def _sweep(self, now: float) -> None:
        if now < self._swept_s + SWEEP_S:
            return
        self._swept_s = now
        self._counters = {key: each for key, each in self._counters.items() if now < each[1]}
        self._windows = {
            key: each for key, each in self._windows.items() if now < each[0] + SWEEP_S
        }


Storage: TypeAlias = "MemoryStorage | CounterStorage"
