"""What the promises of every system are tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.s3 import environment, providers_config
from tests.golden import face
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.provider import Provider


@pytest.fixture(scope="module")
def upstream() -> Iterator[FaultUpstream]:
    """The module's model server."""
    with FaultUpstream() as running:
        yield running


@pytest.fixture(scope="session")
def box_process() -> Iterator[tuple[Gateway, FaultUpstream]]:
    """A gateway as a process, with four workers, and its model server: for what only a process
    shows."""
    with FaultUpstream() as server, face.shared_gateway(server, workers=4) as running:
        yield running, server


@pytest.fixture(scope="session")
def providers_process() -> Iterator[Gateway]:
    """A gateway as a process in front of all providers."""
    with Provider() as provider:
        with Gateway(providers_config(provider), env=environment(), workers=1) as running:
            yield running


@pytest.fixture(scope="module")
def readme() -> str:
    """The front page."""
    return (PROJECT / "README.md").read_text(encoding="utf-8")


def _page(name: str) -> Callable[[], str]:
    """A fixture that is the text of one document."""

    @pytest.fixture(scope="module")
    def text() -> str:
        return (PROJECT / name).read_text(encoding="utf-8")

    return text


clients_page = _page("docs/clients.md")
configuration_page = _page("docs/configuration.md")
deploy_page = _page("deploy/README.md")
errors_page = _page("docs/errors.md")
operations_page = _page("docs/operations.md")
sharing_page = _page("docs/sharing.md")
security_page = _page("SECURITY.md")
