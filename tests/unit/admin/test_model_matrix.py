"""Models and the boxes that have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest

from ollama_proxy.admin.model_matrix import describe_copy, describe_loaded, read_matrix
from ollama_proxy.clock import Clock
from ollama_proxy.gateway import Gateway
from ollama_proxy.settings import settings_from
from tests.rig.boxes import Box, black_hole, row, running
from tests.rig.fault_upstream import Json
from tests.rig.fixtures import function_fixture

GatewayOf = Callable[..., Gateway]


@pytest.fixture
def gateway_of() -> Iterator[GatewayOf]:
    """Makes a gateway with these upstreams."""
    with ExitStack() as made:

        def make(*declared: dict[str, Any]) -> Gateway:
            config = {
                "auth": {"enabled": False},
                "server": {"host": "127.0.0.1"},
                "upstreams": declared,
            }
            gateway = Gateway(settings_from(json.dumps(config).encode(), Path("config.yaml"), {}))
            made.callback(gateway.fleet.close)
            return gateway

        yield make


boxes = function_fixture(lambda: running(Box("box1", ["m", "n"], loaded=["m"]), Box("box2", ["M"])))


def test_models_are_compared_by_their_canonical_names(
    boxes: tuple[Box, Box], gateway_of: GatewayOf
) -> None:
    other = [row("M") | {"digest": "9c" * 32}]
    boxes[1].script("/api/tags", [Json({"models": other})])
    matrix = read_matrix(gateway_of(*(box.declared for box in boxes)), wait_s=10)
    assert [(found.name, found.having, found.differs) for found in matrix.rows] == [
        ("m:latest", ["box1", "box2"], True),
        ("n:latest", ["box1"], False),
    ]
    assert matrix.rows[0].copies["box1"].loaded is not None
    assert matrix.rows[0].copies["box2"].loaded is None
    assert [box.is_fresh for box in matrix.boxes] == [True, True]
    found = matrix.find("library/N")
    assert found is not None and found.key == "n:latest"
    assert matrix.find("o") is None


class ShortClock(Clock):
    """Whatever may be waited for is over as soon as one has answered."""

    __slots__ = ("waited_s",)

    def join(
        self, greenlets: Sequence[gevent.Greenlet[..., Any]], timeout_s: float | None = None
    ) -> None:
        self.waited_s = timeout_s
        gevent.joinall(greenlets, timeout=30, count=1)


def test_a_box_that_hangs_delays_nothing(boxes: tuple[Box, Box], gateway_of: GatewayOf) -> None:
    with black_hole() as port:
        hanging = {"name": "box3", "base_url": f"http://127.0.0.1:{port}"}
        gateway = gateway_of(boxes[0].declared, hanging)
        gateway.clock = clock = ShortClock()
        matrix = read_matrix(gateway, wait_s=0.2)
    assert clock.waited_s == 0.2
    assert [(box.name, box.is_fresh, box.is_known) for box in matrix.boxes] == [
        ("box1", True, True),
        ("box3", False, False),
    ]


def test_a_list_of_before_is_shown(boxes: tuple[Box, Box], gateway_of: GatewayOf) -> None:
    gateway = gateway_of(*(box.declared for box in boxes))
    read_matrix(gateway, wait_s=10)
    boxes[1].script("/api/tags", [Json({"error": "no"}, 500)])
    matrix = read_matrix(gateway, wait_s=10)
    assert [(box.is_fresh, box.is_known) for box in matrix.boxes] == [(True, True), (False, True)]
    assert matrix.rows[0].having == ["box1", "box2"]


def test_nothing_that_a_box_says_is_trusted_to_have_its_type() -> None:
    copy = describe_copy(
        "m", {"size": "big", "digest": 7, "modified_at": [], "details": 3}, {"expires_at": "soon"}
    )
    assert (copy.size, copy.digest, copy.modified_at, copy.details) == (None, "7", "", {})
    assert copy.loaded is not None and copy.loaded.until == ""


def test_a_model_that_stays_has_no_end() -> None:
    assert (
        describe_loaded({"expires_at": "2318-01-01T00:00:00Z", "size": 5, "size_vram": True}).until
        == ""
    )
    assert (
        describe_loaded({"expires_at": "2026-01-01T00:00:00"}).until == "2026-01-01T00:00:00+00:00"
    )
    assert describe_loaded({"size_vram": True}).size_vram is None
