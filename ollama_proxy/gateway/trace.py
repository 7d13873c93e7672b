"""The trace that an exchange belongs to, as W3C Trace Context has it; the requests to
upstreams carry it on."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Trace:
    """An exchange's place in a trace."""

    trace_id: int
    #: Of the exchange itself.
    span_id: int
    #: Of the client's span that it belongs to; None: the trace begins here.
    parent_id: int | None = None
    #: 1: it is recorded.
    flags: int = 1
    #: The header `tracestate`; "" without one.
    state: str = ""

    def begin_attempt(self) -> tuple[int, bytes]:
        """Returns the id of a new span, and the header lines that tell an upstream of it."""
        span_id = new_id(64)
        lines = f"traceparent: 00-{self.trace_id:032x}-{span_id:016x}-{self.flags:02x}\r\n"
        if self.state:
            lines += f"tracestate: {self.state}\r\n"
        return span_id, lines.encode("latin-1")


def new_id(bits: int) -> int:
    """A random id, never 0."""
    return random.getrandbits(bits) or 1
