"""What the gateway knows of a release of Ollama."""

from __future__ import annotations

import pytest

from ollama_proxy.upstreams.ollama.versions import RECOMMENDED, SHIFT_PER_REQUEST, list_faults, unreadable_images

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


@pytest.mark.parametrize("version", ["0.1.0", "0.9.6", "0.12.11", "0.24.0", "0.29.9", "0.29.100"])
def test_older_releases_take_shift_with_each_request(version: str) -> None:
    assert version in SHIFT_PER_REQUEST


@pytest.mark.parametrize(
    "version",
    [
        "0.30.0",
        "0.30.0-rc1",
        "0.32.15",
        "0.100.0",
        "1.0.0",
        "1.24.0",
        "0.0.0",
        "0.0.12",
        "",
        "0.24",
        "v0.24.0",
        "0.24.0-rc2",
    ]
    + ["0.24.0-5-gabcdef", "0.24.0+cuda", "0.24.0.1", "0.24.0\n", " 0.24.0", "0.٢4.0", "unknown", "00.24.0", "0.024.0"],
)
def test_everything_else_counts_as_new(version: str) -> None:
    assert version not in SHIFT_PER_REQUEST


@pytest.mark.parametrize(
    ("version", "is_faulty"),
    [("0.24.0", True), ("0.32.14", True), (RECOMMENDED, False), ("1.0.0", False), ("0.32.14-rc1", False), ("", False)],
)
def test_operators_are_told_of_releases_with_known_faults(version: str, is_faulty: bool) -> None:
    faults = list(list_faults(version))
    assert bool(faults) is is_faulty
    assert all(version in fault for fault in faults)
