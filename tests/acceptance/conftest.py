"""What the promises of every system are tested with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import PROJECT
from tests.rig.provider import Provider


@pytest.fixture(scope="module")
def upstream() -> Iterator[FaultUpstream]:
    """The module's model server."""
    with FaultUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[Provider]:
    """The module's providers. Tests ask for `provider`."""
    with Provider() as running:
        yield running


@pytest.fixture
def provider(shared_provider: Provider) -> Provider:
    """Every provider at once, doing nothing special yet."""
    shared_provider.clear()
    return shared_provider


@pytest.fixture(scope="module")
def readme() -> str:
    """The document that the promises are looked for in."""
    return (PROJECT / "README.md").read_text(encoding="utf-8")
