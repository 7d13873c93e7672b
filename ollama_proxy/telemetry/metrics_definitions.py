"""The metrics that workers count for themselves: their names, labels and meanings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.mmap_dict import mmap_key

from ollama_proxy.errors import (
    AuthError,
    Forbidden,
    ForeignHost,
    ForeignOrigin,
    LimitError,
    MissingToken,
    Overloaded,
    QueueFull,
    QueueTimeout,
    QuotaExceeded,
    RateLimited,
    ShuttingDown,
    TokenRevoked,
)
from ollama_proxy.telemetry.metrics_files import COUNTER, HIGHEST, HISTOGRAM, LOWEST, SUM

#: Upper bounds of histograms, in seconds.
DURATIONS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)

#: Errors with which the gateway itself refuses a request because of its caller, or because
#: there is no room for it.
REFUSALS = frozenset(
    error.slug
    for error in (
        AuthError,
        Forbidden,
        ForeignHost,
        ForeignOrigin,
        LimitError,
        MissingToken,
        Overloaded,
        QueueFull,
        QueueTimeout,
        QuotaExceeded,
        RateLimited,
        ShuttingDown,
        TokenRevoked,
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A metric that workers count for themselves. `kind`: COUNTER, HISTOGRAM, or how gauges
    of workers become one."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    kind: str = COUNTER
    bounds: tuple[float, ...] = ()

    def key(self, values: Sequence[str], suffix: str = "", **further: str) -> str:
        """The key of a value in the files."""
        labels = [*self.labels[: len(values)], *further]
        name = f"ollama_proxy_{self.name}"
        return mmap_key(name, name + suffix, labels, [*values, *further.values()], self.text)


REQUESTS = Definition(
    "requests",
    "Requests that have ended.",
    ("dialect", "route", "model", "upstream", "status", "state", "token"),
)
DURATION = Definition(
    "request_duration_seconds",
    "Time from a request to the end of its answer.",
    ("dialect", "model", "upstream"),
    HISTOGRAM,
    DURATIONS,
)
FIRST_BYTE = Definition(
    "first_byte_seconds",
    "Time from a request to the first byte of its answer.",
    ("dialect", "model", "upstream"),
    HISTOGRAM,
    WAITS,
)
QUEUE_WAIT = Definition(
    "queue_wait_seconds",
    "Time that requests waited for a slot; those that waited.",
    ("upstream",),
    HISTOGRAM,
    WAITS,
)
MODEL_LOAD = Definition(
    "model_load_seconds",
    "Time in which a server loaded a model for a request.",
    ("model", "upstream"),
    HISTOGRAM,
    WAITS,
)
TOKENS = Definition(
    "tokens",
    "Tokens; those of prompts include cached ones.",
    ("model", "upstream", "kind", "token"),
)
GPU_SECONDS = Definition("gpu_seconds", "Seconds of GPU time.", ("model", "upstream", "token"))
COST = Definition("cost", "Cost, in records.currency.", ("model", "upstream", "token"))
REFUSED = Definition(
    "refused", "Requests that the gateway has refused, by the code of the error.", ("reason",)
)
IN_FLIGHT = Definition("in_flight", "Requests that upstreams answer now.", ("upstream",), SUM)
UPSTREAM_UP = Definition("upstream_up", "Whether the upstream can be used.", ("upstream",), LOWEST)
BREAKER_OPEN = Definition(
    "breaker_open",
    "Whether requests are kept from an upstream, or from one of its models, because they failed.",
    ("upstream", "model"),
    HIGHEST,
)
LAG = Definition(
    "event_loop_lag_seconds",
    "Longest time that a worker's event loop was late, of the last half minute.",
    (),
    HIGHEST,
)
