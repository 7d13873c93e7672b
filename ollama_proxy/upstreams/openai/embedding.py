"""Embeddings of many texts: batches of the size that a provider takes, and the retries
of all but the first."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import inf

from ollama_proxy.errors import UpstreamConnect, UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.upstreams.call import Call

#: Pauses before a batch is sent again, in seconds: in all, longer than a limit per minute lasts.
#: And the longest pause that a provider may ask for.
PAUSES_S, LONGEST_PAUSE_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), 60

#: The vectors of some texts, and how many tokens were read.
Batch = tuple[list[Sequence[float]], int]


def embed_batches(
    send: Callable[[Sequence[str]], Batch], texts: Sequence[str], size: int, call: Call
) -> Batch:
    """The vectors of all texts, sent `size` at a time. Batches that were paid for are not sent
    again: later ones wait here while the provider is busy, and fail with an error that causes no
    retry from the start."""
    vectors: list[Sequence[float]] = []
    read = 0
    for start in range(0, len(texts), size):
        batch, pauses = texts[start : start + size], iter(PAUSES_S)
        while True:
            try:
                found, tokens = send(batch)
                break
            except UpstreamError as error:
                if not start:
                    raise  # nothing was paid for yet
                pause_s = _pause_s(error, next(pauses, inf))
                if call.clock.monotonic() + pause_s >= call.ends_at:
                    if isinstance(error, UpstreamRefused):
                        error.final = True
                    elif isinstance(error, UpstreamConnect) or type(error) is UpstreamError:
                        error = UpstreamCut(
                            detail=f"between two batches: {error.slug}: {error.detail}"
                        )
                    raise error from None
            call.pause(pause_s)
        vectors += found
        read += tokens
    return vectors, read


def _pause_s(error: UpstreamError, pause_s: float) -> float:
    """Seconds until the next attempt; infinite if that would not help."""
    is_busy = isinstance(error, UpstreamRefused) and error.status in (429, 503) and not error.final
    asked_s = error.retry_after_s or 0
    if not (is_busy or isinstance(error, UpstreamConnect)) or asked_s > LONGEST_PAUSE_S:
        return inf
    return max(pause_s * random.uniform(0.5, 1.5), asked_s)
