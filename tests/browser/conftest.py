"""One browser and one gateway for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.stage import Stage, ask_model, open_stage, wait_for_usage
from tests.rig.boxes import Box
from tests.rig.browser import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of a module."""
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def shared_stage(browser: Browser) -> Iterator[Stage]:
    """Two boxes of which one is down, and a few requests. Tests ask for `stage`."""
    box = Box("box1", ["tiny", "other"], loaded=["tiny"], version="0.32.15")
    away = Box("box2", ["tiny"])
    with open_stage(browser, box, away) as stage:
        assert [ask_model(stage.gateway), ask_model(stage.gateway, "absent"), ask_model(stage.gateway)] == [
            200,
            404,
            200,
        ]
        away.refuse()
        wait_for_usage(stage.gateway, 3)
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """The module's stage. Whatever goes wrong in one of its tabs fails the test."""
    yield shared_stage
    shared_stage.finish_test()
