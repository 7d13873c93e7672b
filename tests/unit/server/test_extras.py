"""What the settings need must be installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.server.extras import check_tracing
from ollama_proxy.settings.schema import Settings, settings_from

WANTED = b"tracing:\n  otlp_endpoint: http://localhost:4318\n"


def test_traces_need_the_extra_only_if_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, real = settings_from(WANTED, Path("c.yaml"), {}), importlib.import_module
    check_tracing(wanted)

    def lacks(name: str) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", lacks)
    check_tracing(Settings())
    with pytest.raises(ConfigError, match=r"c.yaml:2.*make install EXTRAS=otel"):
        check_tracing(wanted)
