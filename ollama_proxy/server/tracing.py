"""Traces, if they are wanted: the extra `otel` has the packages, which a gateway
without traces does without."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

from ollama_proxy.gateway import Exchange, Gateway
from ollama_proxy.server.extras import check_tracing
from ollama_proxy.settings import Settings


class Tracing(Protocol):
    """See telemetry.tracing."""

    def begin_request(self) -> None:
        """Flask's before_request, after the exchange was admitted."""

    def record(self, exchange: Exchange) -> None:
        """A finish observer."""

    def start(self) -> None:
        """Begins to send."""


def build_tracing(settings: Settings, gateway: Callable[[], Gateway]) -> Tracing | None:
    """The traces of this worker; None if they are not wanted. Raises
    ConfigError, see check_tracing."""
    endpoint = settings.tracing.otlp_endpoint
    if endpoint is None:
        return None
    check_tracing(settings)
    tracing: Tracing = importlib.import_module("ollama_proxy.telemetry.tracing").Tracing(
        endpoint, gateway
    )
    return tracing
