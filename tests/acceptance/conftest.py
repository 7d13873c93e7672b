"""What the promises of every system are tested with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import PROJECT


@pytest.fixture(scope="module")
def upstream() -> Iterator[FaultUpstream]:
    """The module's model server."""
    with FaultUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def readme() -> str:
    """The document that the promises are looked for in."""
    return (PROJECT / "README.md").read_text(encoding="utf-8")
