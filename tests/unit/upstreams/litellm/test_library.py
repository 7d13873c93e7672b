"""LiteLLM as it is loaded."""

from __future__ import annotations

import sys

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.upstreams.litellm.library import load_litellm


def test_a_missing_package_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ConfigError, match="make install EXTRAS=litellm"):
        load_litellm()
