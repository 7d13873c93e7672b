"""What is worth remembering of an upstream's models for a while, so that nobody asks it again for every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Generic, TypeVar

from ollama_proxy.errors import ClientGone, GatewayError
from ollama_proxy.streaming import Call

T = TypeVar("T")

#: Longest wait for a fact, in seconds: an answer without it beats an answer that is late.
WAIT_S = 5.0

#: Facts that are kept at most; beyond that the oldest goes.
MOST = 1000


class Facts(Generic[T]):
    """Facts by their key, each good for `keep_s` seconds."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._known: dict[Hashable, tuple[float, T]] = {}

    def get(self, key: Hashable, call: Call, ask: Callable[[Call], T]) -> T | None:
        """The fact, asked for where it is not known; None where the upstream does not tell. Raises ClientGone."""
        known = self._known.get(key)
        if known is not None and time.monotonic() - known[0] < self._keep_s:
            return known[1]
        limits = replace(call.timeouts, first_byte_s=WAIT_S, idle_s=WAIT_S, total_s=WAIT_S)
        try:
            fact = ask(call.branch(limits))
        except ClientGone:
            raise
        except GatewayError:
            return None
        self._known.pop(key, None)
        self._known[key] = (time.monotonic(), fact)
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        return fact
