"""Facts about an upstream's models that are kept for a while, so that not every request has to fetch them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Generic, TypeVar

from ollama_proxy.errors import CallEnded, GatewayError
from ollama_proxy.upstreams.bounded_cache import BoundedCache
from ollama_proxy.upstreams.call import Call

T = TypeVar("T")

#: Longest wait for a fact, in seconds: an answer without it is better than a late answer.
WAIT_S = 5.0

#: How long it is remembered that an upstream did not answer, in seconds: only one caller waits in vain.
UNKNOWN_KEPT_S = 10.0

#: The most facts that are kept, and bytes of them.
MOST, MOST_BYTES = 1000, 4 << 20


class TtlCache(Generic[T]):
    """Facts by their key, each valid for `keep_s` seconds."""

    def __init__(self, keep_s: float, most: int = MOST) -> None:
        self._keep_s = keep_s
        #: By key: until when it is valid, and the fact.
        self._known = BoundedCache[Hashable, tuple[float, T | None]](most, MOST_BYTES)

    def get(self, key: Hashable, call: Call, ask: Callable[[Call], T]) -> T | None:
        """The fact, fetched by `ask` if it is not known; None if the upstream does not answer. Raises CallEnded."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        limits = replace(call.timeouts, first_byte_s=WAIT_S, idle_s=WAIT_S, total_s=WAIT_S)
        try:
            fact, keep_s = ask(call.branch(limits)), self._keep_s
        except CallEnded:
            raise
        except GatewayError:
            if time.monotonic() >= call.ends_at:
                return None  # the caller's own time was too short, which says nothing to others
            fact, keep_s = None, UNKNOWN_KEPT_S
        self._known.put(key, (time.monotonic() + keep_s, fact))
        return fact
