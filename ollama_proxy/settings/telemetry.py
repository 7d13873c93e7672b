"""What other programs are told of the gateway's work: metrics for Prometheus, and traces."""

from __future__ import annotations

from dataclasses import dataclass

from ollama_proxy.settings.declare import setting
from ollama_proxy.settings.formats import BASE_URL, PROXY
from ollama_proxy.settings.types import BOOLEAN, list_of, optional


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics for Prometheus, at /metrics."""

    enabled: bool = setting(
        True,
        "Count requests, and serve the counts at /metrics. Switching it on takes "
        "effect at the next start.",
        BOOLEAN,
    )
    allow: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        "Addresses of clients that may read them without a token with the scope metrics. "
        "`unix:` means a unix socket.",
        list_of(PROXY),
    )
    token_label: bool = setting(
        False,
        "Count the requests of each token by its name. Takes effect at the next start.",
        BOOLEAN,
    )


@dataclass(frozen=True, slots=True)
class Tracing:
    """Traces of requests, with OpenTelemetry; needs an extra: `make install EXTRAS=otel`."""

    otlp_endpoint: str | None = setting(
        None,
        "Collector that gets the traces over OTLP/HTTP, such as http://localhost:4318. Absent: none. "
        "Takes effect at the next start.",
        optional(BASE_URL),
    )
