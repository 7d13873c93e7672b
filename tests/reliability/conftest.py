"""Fixtures of the rows: `row`, through each door that the row takes, on the `rig` of its
module, or on the one that all others share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.reliability import report
from tests.reliability.rig import BY_SCOPE, DOORS, EXPIRED, TOKEN, Rig, Row


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a row through the doors that its mark `door` names. Without a mark, it takes the one of
    the gateway, and with BOTH_DOORS nginx as well."""
    if "door" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("door")
        usual = DOORS if report.BOTH_DOORS else DOORS[:1]
        metafunc.parametrize("door", marker.args if marker else usual)


@pytest.fixture(autouse=True)
def _reported(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a row measures belongs to the test that runs."""
    with report.noting(request.node):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Lets fixtures know how the test went."""
    outcome = yield
    if call.when == "call":
        item.stash[FAILED] = call.excinfo is not None
    return outcome  # noqa: B901


FAILED = pytest.StashKey[bool]()


class _Failed(Exception):
    """The test has failed; its own error is the one to show."""


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """A gateway for all rows that need no settings of their own and leave it as it is."""
    tokens: list[dict[str, Any]] = [
        {"name": "team", "token": TOKEN},
        {"name": "expired", "token": EXPIRED, "expires": "2026-01-31"},
        *({"name": scope, "token": token, "scopes": [scope]} for scope, token in BY_SCOPE.items()),
    ]
    with Rig(config={"auth": {"generate_tokens": tokens, "max_failed_logins": 0}}) as running:
        yield running


@pytest.fixture
def row(rig: Rig, door: str, request: pytest.FixtureRequest) -> Iterator[Row]:
    """One row through one door; the six rules are checked at its end, unless the test
    has failed by itself."""
    try:
        with rig.row(door) as running:
            yield running
            if request.node.stash.get(FAILED, False):
                raise _Failed
    except _Failed:
        pass
