"""Limits guessing of tokens: wrong tokens are counted by client address, and beyond a limit
no unknown one is checked.

A client that has used a valid token from an address before is not affected by a guesser
behind the same address.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from ollama_proxy.errors import TooManyGuesses

if TYPE_CHECKING:  # commands need neither a clock nor greenlets
    from ollama_proxy.clock import Clock

#: How long wrong tokens are counted for an address, from the first of them, in seconds.
WINDOW_S = 60.0

#: How many addresses with wrong tokens are remembered; the oldest are dropped first.
MOST_KEPT = 10_000

#: Marks for pairs of an address and a valid token, in bits. Two pairs may share a mark: then a
#: guess is checked that would have been refused.
SEEN_BITS = 1 << 20

#: How many of the latest wrong tokens of an address are not counted again: a client with an old
#: token is not guessing.
MOST_REPEATED = 8


def create_shared_marks() -> mmap.mmap:
    """Return empty marks that a process shares with those that it forks."""
    return mmap.mmap(-1, SEEN_BITS // 8)


@dataclass(slots=True)
class _Window:
    """The wrong tokens of one address within a minute."""

    ends: float
    failures: int = 0
    latest: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_REPEATED))


class AuthFailureLimiter:
    """Counts the wrong tokens of the last minute in this process; `limit` may be changed at
    any time, 0 disables it.

    `seen` has the marks of valid tokens (see create_shared_marks; None: marks of its own). `tell`
    is called with an address and the number of its wrong tokens when the limit is reached, so at
    most once a minute for each address.
    """

    def __init__(
        self,
        limit: int,
        *,
        tell: Callable[[str, int], None] = lambda address, failures: None,
        seen: MutableSequence[int] | mmap.mmap | None = None,
        clock: Clock,
    ) -> None:
        self.limit = limit
        self._tell = tell
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._seen = bytearray(SEEN_BITS // 8) if seen is None else seen

    def check(self, address: str, digest: bytes | None = None) -> None:
        """Raises TooManyGuesses if this token must not be checked; without a digest, if no token
        must be checked that is not known to be valid."""
        window = self._windows.get(origin_of(address))
        if window is not None and (digest is None or not self.has_passed(address, digest)):
            self._check_window(window)

    def has_passed(self, address: str, digest: bytes) -> bool:
        """Whether the token was valid at this address before."""
        byte, bit = _mark(origin_of(address), digest)
        return bool(self._seen[byte] & bit)

    def has_failed(self, address: str, digest: bytes) -> bool:
        """Whether the token is one of the latest wrong ones of this address."""
        window = self._windows.get(origin_of(address))
        return (
            window is not None and self._clock.monotonic() < window.ends and digest in window.latest
        )

    def note_right(self, address: str, digest: bytes) -> None:
        """Notes that the token is valid: from this address it will not be refused."""
        byte, bit = _mark(origin_of(address), digest)
        if not self._seen[byte] & bit:
            self._seen[byte] |= bit

    def note_wrong(self, address: str, digest: bytes) -> None:
        """Counts a token that is not valid; raises TooManyGuesses if unknown ones are
        not checked any more."""
        origin = origin_of(address)
        window = self._windows.get(origin)
        if window is None or self._clock.monotonic() >= window.ends:
            self._windows.pop(origin, None)  # a new window is the last one to be dropped
            window = self._windows[origin] = _Window(self._clock.monotonic() + WINDOW_S)
            if len(self._windows) > MOST_KEPT:
                del self._windows[next(iter(self._windows))]
        self._check_window(window)
        if digest not in window.latest:
            window.latest.append(digest)
            window.failures += 1
            if 0 < self.limit <= window.failures:
                self._tell(origin, window.failures)

    def _check_window(self, window: _Window) -> None:
        """Raises TooManyGuesses while the limit is reached."""
        left_s = window.ends - self._clock.monotonic()
        if left_s > 0 and 0 < self.limit <= window.failures:
            raise TooManyGuesses(retry_after_s=math.ceil(left_s))


def _mark(origin: str, digest: bytes) -> tuple[int, int]:
    """Returns the byte and the bit of a pair."""
    place = zlib.crc32(digest, zlib.crc32(origin.encode())) % SEEN_BITS
    return place >> 3, 1 << (place & 7)


@lru_cache(maxsize=1024)
def origin_of(address: str) -> str:
    """Returns the owner of an address: of IPv6 the first 64 bits, because a client with one
    address there has all."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(parsed.packed[:8] + bytes(8))}/64"
