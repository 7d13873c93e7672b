"""Which formats an Ollama server can't read, by its version."""

from __future__ import annotations

import pytest

from ollama_proxy.upstreams.ollama.image_formats import unreadable_images

GIF, WEBP = "image/gif", "image/webp"


@pytest.mark.parametrize(
    ("version", "unreadable"),
    [
        ("0.24.0", {GIF}),
        ("0.29.9", {GIF}),
        ("0.30.0", {GIF, WEBP}),
        ("0.31.7", {GIF, WEBP}),
        ("0.32.13", {GIF, WEBP}),
        ("0.32.14", {GIF}),
        ("0.32.15", {GIF}),
        ("1.0.0", {GIF}),
        # Not releases, so they count as new.
        ("", {GIF}),
        ("0.0.0", {GIF}),
        ("0.31.0-rc1", {GIF}),
        ("0.31.0 with more", {GIF}),
    ],
)
def test_formats_by_version(version: str, unreadable: set[str]) -> None:
    assert unreadable_images(version) == unreadable
