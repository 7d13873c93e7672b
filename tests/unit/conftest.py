"""What unit tests share."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ollama_proxy.upstreams.call import Call
from tests.rig.clock import ManualClock, SkippingClock
from tests.rig.in_process import InProcess, in_process
from tests.rig.postgres import PostgresServer
from tests.unit.upstreams.stock import LIMITS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """A clock that the test moves by hand; chance takes the middle of its range."""
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest) -> str:
    """As everywhere; here no other process can still use the database of PostgreSQL when the next
    test has it."""
    if request.param == "sqlite":
        return "sqlite:state/records.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.empty_database()


@pytest.fixture
def call() -> Call:
    """A call with short limits."""
    return Call(LIMITS)


@pytest.fixture(scope="module")
def demo_app() -> Iterator[InProcess]:
    """The gateway in front of the demo model, in this process."""
    with in_process(clock=SkippingClock()) as app:
        yield app
