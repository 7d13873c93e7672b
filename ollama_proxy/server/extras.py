"""Checks that what the settings need is installed."""

from __future__ import annotations

import importlib

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings import Settings

#: What the extra `otel` installs.
_TRACING = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


def check_tracing(settings: Settings) -> None:
    """Raises ConfigError if traces are wanted and the extra `otel` is not installed."""
    if settings.tracing.otlp_endpoint is None:
        return
    try:
        for name in _TRACING:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        where = settings.origins.get("tracing.otlp_endpoint", "tracing.otlp_endpoint")
        raise ConfigError(
            f"{where}: traces need OpenTelemetry: install it with 'make install EXTRAS=otel' "
            "or pip install 'ollama-proxy[otel]'"
        ) from error
