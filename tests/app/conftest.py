"""Fixtures of the tests that need no process: one upstream and one gateway for a module, both in
the process of the test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.golden import face
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.local import LocalGateway


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[FaultUpstream]:
    """One scripted upstream for the module. Tests ask for `upstream`."""
    with FaultUpstream() as server:
        yield server


@pytest.fixture
def upstream(shared_upstream: FaultUpstream) -> Iterator[FaultUpstream]:
    """The gateway's upstream, without scripts."""
    shared_upstream.clear()
    yield shared_upstream
    if not shared_upstream.is_listening:
        shared_upstream.restart()


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """One gateway for the module, with `face.TOKEN`. Tests ask for `gateway`."""
    with face.local_gateway(shared_upstream) as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: LocalGateway, upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """The module's gateway; a test leaves nothing open."""
    yield shared_gateway
    shared_gateway.check_idle()


@pytest.fixture(scope="module")
def demo_gateway() -> Iterator[LocalGateway]:
    """A gateway that answers by itself, without an upstream."""
    with face.local_gateway(service={"base_url": "demo:"}) as running:
        yield running


@pytest.fixture
def request_id() -> str:
    """An id that no other call has."""
    return "call-" + secrets.token_hex(8)
