"""Which origins a configured one stands for."""

from __future__ import annotations

import re

import pytest

from ollama_proxy.cors import origin_pattern


@pytest.mark.parametrize("origin", ["*", "https://chat.example.org", "http://localhost:3000"])
def test_plain_origins_are_compared_as_they_are(origin: str) -> None:
    assert origin_pattern(origin) == origin


@pytest.mark.parametrize(
    ("origin", "covered"),
    [
        ("https://chat.example.com", True),
        ("https://a.b.example.com", True),
        ("https://example.com", False),
        ("https://xexample.com", False),
        ("https://chat.example.com.evil.org", False),
        ("https://evil.org/.example.com", False),
        ("http://chat.example.com", False),
    ],
)
def test_a_star_stands_for_labels_and_nothing_else(origin: str, covered: bool) -> None:
    pattern = origin_pattern("https://*.example.com")
    assert isinstance(pattern, re.Pattern)
    assert bool(pattern.match(origin)) is covered
