"""The settings of the admin API."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.admin import Admin
from ollama_proxy.settings.schema import settings_from


def test_it_is_on_for_every_address_unless_the_file_says_otherwise() -> None:
    assert settings_from(b"server: {}", Path("c.yaml"), {}).admin == Admin(enabled=True, allow=())
    given = settings_from(
        b"admin: {enabled: false, allow: [10.0.0.0/8, '::1']}", Path("c.yaml"), {}
    ).admin
    assert given == Admin(enabled=False, allow=("10.0.0.0/8", "::1"))


def test_only_networks_are_allowed() -> None:
    with pytest.raises(ConfigError, match=r"admin.allow\[1\] must be an IP address or a network"):
        settings_from(b"admin: {allow: [box1]}", Path("c.yaml"), {})
