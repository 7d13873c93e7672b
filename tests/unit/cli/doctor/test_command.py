"""Which address is checked; the command as a process: integration/test_doctor.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.cli.doctor.command import own_url
from ollama_proxy.settings import settings_from


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("10.0.0.7", "http://10.0.0.7:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_the_gateways_own_address(host: str, url: str) -> None:
    assert own_url(settings_from(f"server: {{host: '{host}'}}".encode(), Path("c.yaml"), {})) == url
