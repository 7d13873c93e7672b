"""What unit tests share."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from ollama_proxy.upstreams.call import Call
from tests.rig.in_process import InProcess, in_process
from tests.unit.upstreams.stock import LIMITS, Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, in the test's own hands; chance takes the middle of its range."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    return clock


@pytest.fixture
def call() -> Call:
    """A call with short limits."""
    return Call(LIMITS)


@pytest.fixture(scope="module")
def demo_app() -> Iterator[InProcess]:
    """The gateway in front of the demo model, in this process."""
    with in_process() as app:
        yield app
