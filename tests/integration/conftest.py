"""Fixtures of the integration tests: one upstream and one gateway for a module, and
what a test asks of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.golden import face
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.nginx import Nginx, nginx_before


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[FaultUpstream]:
    """One scripted upstream for the module. Tests ask for `upstream`."""
    with FaultUpstream() as server:
        yield server


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test does to the module's upstream ends with the test: the next one, or a gateway that
    starts for it, may not ask for `upstream`."""
    if "shared_upstream" not in request.fixturenames:
        yield
        return
    shared: FaultUpstream = request.getfixturevalue("shared_upstream")
    yield
    shared.clear()
    if not shared.is_listening:
        shared.restart()


@pytest.fixture
def upstream(shared_upstream: FaultUpstream) -> FaultUpstream:
    """The gateway's upstream, healthy again."""
    shared_upstream.clear()
    return shared_upstream


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """One gateway for the module, with `face.TOKEN`; a module that needs another
    configuration has its own."""
    with face.shared_gateway(shared_upstream) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: Gateway, upstream: FaultUpstream) -> Gateway:
    """The module's gateway; its upstream is healthy again."""
    return shared_gateway


@pytest.fixture(scope="module")
def demo_gateway() -> Iterator[Gateway]:
    """A gateway that answers by itself, without an upstream."""
    with face.shared_gateway(service={"base_url": "demo:"}) as running:
        yield running


@pytest.fixture(scope="module")
def nginx(shared_gateway: Gateway) -> Iterator[Nginx]:
    """The shipped nginx site in front of the module's gateway."""
    with nginx_before(shared_gateway) as server:
        yield server


@pytest.fixture
def request_id() -> str:
    """An id that no other call has."""
    return "call-" + secrets.token_hex(8)
