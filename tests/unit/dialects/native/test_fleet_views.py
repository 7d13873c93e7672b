"""Ollama's lists, told of several upstreams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.boxes import Box
from tests.rig.in_process import InProcess, in_process


@pytest.fixture(scope="module")
def two_boxes() -> Iterator[InProcess]:
    with Box("one", ["a", "both"], version="0.30.1") as one, Box("two", ["b", "both"], version="0.9.2") as two:
        with in_process(upstreams=[one.declared, two.declared]) as app:
            one.loaded = ["a:latest"]
            yield app


def test_the_list_has_the_models_of_both_once(two_boxes: InProcess) -> None:
    names = [row["name"] for row in two_boxes.ask("GET", "/api/tags").json["models"]]
    assert sorted(names) == ["a:latest", "b:latest", "both:latest"]


def test_the_version_is_the_oldest(two_boxes: InProcess) -> None:
    two_boxes.ask("GET", "/readyz")
    assert two_boxes.ask("GET", "/api/version").json["version"] == "0.9.2"


def test_the_cloud_is_off(two_boxes: InProcess) -> None:
    assert two_boxes.ask("GET", "/api/status").json == {"cloud": {"disabled": True, "source": "config"}}
