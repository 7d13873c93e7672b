"""Who may read metrics, and where traces go."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings, settings_from
from ollama_proxy.settings.telemetry import Metrics, Tracing


def load(text: str) -> Settings:
    return settings_from(text.encode(), Path("c.yaml"), {})


def test_metrics_are_for_this_machine_and_traces_are_off() -> None:
    assert (Settings().metrics, Settings().tracing) == (
        Metrics(True, ("127.0.0.1", "::1"), False),
        Tracing(None),
    )


def test_networks_and_an_endpoint_can_be_given() -> None:
    settings = load(
        "metrics: {allow: [10.0.0.0/8, 'unix:']}\ntracing: {otlp_endpoint: 'http://c:4318'}"
    )
    assert settings.metrics.allow == ("10.0.0.0/8", "unix:")
    assert settings.tracing.otlp_endpoint == "http://c:4318"


@pytest.mark.parametrize(
    "text", ["metrics: {allow: [everybody]}", "tracing: {otlp_endpoint: 'c:4318'}"]
)
def test_anything_else_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match="c.yaml:1"):
        load(text)
