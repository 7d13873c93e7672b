"""What is worth remembering of an upstream's models for a while, so that nobody asks it again for every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Generic, TypeVar

from ollama_proxy.errors import CallEnded, GatewayError
from ollama_proxy.upstreams.bounded_cache import BoundedCache
from ollama_proxy.upstreams.call import Call

T = TypeVar("T")

#: Longest wait for a fact, in seconds: an answer without it beats an answer that is late.
WAIT_S = 5.0

#: How long it is remembered that an upstream did not tell, in seconds: who waits for nothing waits once.
UNKNOWN_KEPT_S = 10.0

#: Facts that are kept at most, and bytes of them.
MOST, MOST_BYTES = 1000, 4 << 20


class TtlCache(Generic[T]):
    """Facts by their key, each good for `keep_s` seconds."""

    def __init__(self, keep_s: float, most: int = MOST) -> None:
        self._keep_s = keep_s
        #: By key: until when it is good, and the fact.
        self._known = BoundedCache[Hashable, tuple[float, T | None]](most, MOST_BYTES)

    def get(self, key: Hashable, call: Call, ask: Callable[[Call], T]) -> T | None:
        """The fact, asked for where it is not known; None where the upstream does not tell. Raises CallEnded."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        limits = replace(call.timeouts, first_byte_s=WAIT_S, idle_s=WAIT_S, total_s=WAIT_S)
        try:
            return self._kept(key, ask(call.branch(limits)), self._keep_s)
        except CallEnded:
            raise
        except GatewayError:
            # A caller whose own time was too short has learnt nothing for the others.
            return self._kept(key, None, UNKNOWN_KEPT_S) if time.monotonic() < call.ends_at else None

    def _kept(self, key: Hashable, fact: T | None, keep_s: float) -> T | None:
        self._known.put(key, (time.monotonic() + keep_s, fact))
        return fact
