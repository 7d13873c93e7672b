"""Ollama's lists, told of several upstreams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.boxes import Box
from tests.rig.fault_upstream import Json, Whole
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


ON, OFF = ({"cloud": {"disabled": disabled, "source": "none"}} for disabled in (False, True))
GATEWAYS = {"cloud": {"disabled": True, "source": "config"}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(ON, ON, ON), (ON, OFF, GATEWAYS), (ON, None, ON), (None, None, GATEWAYS)],
    ids=["agreed", "not agreed", "one does not know", "none knows"],
)
def test_the_status_is_that_of_the_servers_if_they_agree(first: Any, second: Any, expected: Any) -> None:
    with Box("one", ["a"]) as one, Box("two", ["b"]) as two:
        for box, status in ((one, first), (two, second)):
            box.script("/api/status", [Json(status) if status else Whole(b"404 page not found", 404)])
        with in_process(upstreams=[one.declared, two.declared]) as app:
            assert app.ask("GET", "/api/status").json == expected
