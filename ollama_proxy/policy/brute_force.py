"""Who tries out tokens: wrong ones are counted by the address that they come from, and past a limit not even looked at.

Whoever has shown a good token from an address before is not in the way of a guesser behind the same one.
"""

from __future__ import annotations

import math
import mmap
import time
import zlib
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from ollama_proxy.errors import TooManyGuesses

#: How long wrong tokens are held against an address, from the first of them, in seconds.
WINDOW_S = 60.0

#: Addresses with wrong tokens that are remembered; the oldest go first.
MOST_KEPT = 10_000

#: Marks for pairs of an address and a token that was good, in bits. Two pairs may share one: then a guess is looked at
#: that would not have been.
SEEN_BITS = 1 << 20

#: The marks of all workers of a machine: their master makes them before it forks.
SEEN = mmap.mmap(-1, SEEN_BITS // 8)

#: Wrong tokens of an address that count once however often they come: a client with an old token is no guesser.
MOST_REPEATED = 8


@dataclass(slots=True)
class _Window:
    """What one address has tried within a minute."""

    ends: float
    failures: int = 0
    latest: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_REPEATED))


class AuthFailureLimiter:
    """The wrong tokens of the last minute in this process; `limit` may be changed while it runs, 0 switches it off.

    `seen` has the marks of good tokens (see SEEN; none: marks of its own). `tell` hears the address and the number of
    its wrong tokens when the limit is reached, so once a minute for each.
    """

    def __init__(
        self,
        limit: int,
        *,
        tell: Callable[[str, int], None] = lambda address, failures: None,
        seen: MutableSequence[int] | mmap.mmap | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._tell = tell
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._seen = bytearray(SEEN_BITS // 8) if seen is None else seen

    def check(self, address: str, digest: bytes) -> None:
        """Raises TooManyGuesses where this token must not be looked at."""
        origin = origin_of(address)
        window = self._windows.get(origin)
        if window and self._is_over(window):
            byte, bit = _mark(origin, digest)
            if not self._seen[byte] & bit:
                raise self._refusal(window)

    def note_right(self, address: str, digest: bytes) -> None:
        """The token was good: from this address it stays welcome."""
        byte, bit = _mark(origin_of(address), digest)
        if not self._seen[byte] & bit:
            self._seen[byte] |= bit

    def note_wrong(self, address: str, digest: bytes) -> None:
        """The token was not good, or is not any more. Raises TooManyGuesses where unknown ones are not looked at."""
        origin = origin_of(address)
        window = self._windows.get(origin)
        if window is None or self._clock() >= window.ends:
            self._windows.pop(origin, None)  # a new window is the last one to be forgotten
            window = self._windows[origin] = _Window(self._clock() + WINDOW_S)
            if len(self._windows) > MOST_KEPT:
                del self._windows[next(iter(self._windows))]
        if self._is_over(window):
            raise self._refusal(window)
        if digest not in window.latest:
            window.latest.append(digest)
            window.failures += 1
            if self._is_over(window):
                self._tell(origin, window.failures)

    def _is_over(self, window: _Window) -> bool:
        return 0 < self.limit <= window.failures and self._clock() < window.ends

    def _refusal(self, window: _Window) -> TooManyGuesses:
        return TooManyGuesses(retry_after_s=max(1, math.ceil(window.ends - self._clock())))


def _mark(origin: str, digest: bytes) -> tuple[int, int]:
    """The byte and the bit of a pair."""
    place = zlib.crc32(digest, zlib.crc32(origin.encode())) % SEEN_BITS
    return place >> 3, 1 << (place & 7)


@lru_cache(maxsize=1024)
def origin_of(address: str) -> str:
    """Whose address it is: of IPv6 the first 64 bits, since whoever has one address there has all of them."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(parsed.packed[:8] + bytes(8))}/64"
