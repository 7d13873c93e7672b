"""One browser for all modules, and one gateway for those that do not start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.stage import OPERATOR, Stage, ask_model, open_stage, wait_for_usage
from tests.rig.boxes import Box
from tests.rig.browser import Browser


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium. It ends before tests outside this directory run: playwright keeps an event
    loop of asyncio running in the thread of the tests."""
    with Browser() as running:
        yield running


@pytest.fixture(scope="package")
def shared_stage(browser: Browser) -> Iterator[Stage]:
    """Two boxes of which one is down, and a few requests. Tests ask for `stage`."""
    box = Box("box1", ["tiny", "other"], loaded=["tiny"], version="0.32.15")
    away = Box("box2", ["tiny"])
    with open_stage(browser, box, away) as stage:
        assert [
            ask_model(stage.gateway),
            ask_model(stage.gateway, "absent"),
            ask_model(stage.gateway),
        ] == [
            200,
            404,
            200,
        ]
        make_entries(stage)
        away.refuse()
        wait_for_usage(stage.gateway, 3)
        yield stage


def make_entries(stage: Stage) -> None:
    """A key, and an upstream that was added to those of the file."""
    declared = {"name": "added", "kind": "vllm", "base_url": "http://127.0.0.1:9/v1"}
    made = [
        stage.gateway.ask(
            "/admin/api/tokens", {"name": "made", "note": "for the tests"}, token=OPERATOR
        ),
        stage.gateway.ask("/admin/api/upstreams", declared, token=OPERATOR),
    ]
    assert [each.status for each in made] == [201, 201], [each.body for each in made]


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """The shared stage. Whatever goes wrong in one of its tabs fails the test."""
    yield shared_stage
    shared_stage.finish_test()
