"""Fixtures of the client suites: a gateway in front of scripted models, and one
that answers by itself. Both run until the last test of the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.golden import face
from tests.golden.blocking import Blocking
from tests.rig.gateway import Gateway
from tests.sdk.clients import Clients
from tests.sdk.scripted_models import ScriptedModels

# Read while it is imported: without it litellm asks the internet what models cost.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[ScriptedModels]:
    """One upstream, whose models are scripts. Tests ask for `upstream`."""
    with ScriptedModels() as server:
        yield server


@pytest.fixture(scope="session")
def shared_gateway(shared_upstream: ScriptedModels) -> Iterator[Gateway]:
    """The gateway in front of it. Its pool may grow: all features of a client of
    `test_node.py` are asked for at once. Tests ask for `gateway`."""
    with face.shared_gateway(shared_upstream, idle=64, workers=1) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: ScriptedModels) -> ScriptedModels:
    """The gateway's upstream, without scripts and requests of other tests."""
    shared_upstream.clear()
    return shared_upstream


@pytest.fixture
def gateway(shared_gateway: Gateway, upstream: ScriptedModels) -> Gateway:
    """The gateway in front of `upstream`."""
    return shared_gateway


@pytest.fixture(scope="session")
def demo_gateway() -> Iterator[Gateway]:
    """A gateway that answers by itself, without an upstream."""
    with face.shared_gateway(service={"base_url": "demo:"}, workers=1) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """``open_client(gateway)`` gives one of the module's `CLIENTS`; it is closed with the test."""
    clients: Clients = request.module.CLIENTS
    with ExitStack() as opened:

        def run(gateway: Gateway, **options: Any) -> Any:
            options = clients.options(gateway) | options
            if request.param == "sync":
                return opened.enter_context(clients.synchronous(**options))
            client = Blocking(clients.asynchronous(**options))
            opened.callback(client.shut)
            return client

        yield run


@pytest.fixture
def client(open_client: Callable[..., Any], gateway: Gateway) -> Any:
    return open_client(gateway)


@pytest.fixture
def demo(open_client: Callable[..., Any], demo_gateway: Gateway) -> Any:
    return open_client(demo_gateway)


@pytest.fixture
def plain(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Any]:
    """The synchronous client, for what is to be used as it is."""
    clients: Clients = request.module.CLIENTS
    with clients.synchronous(**clients.options(gateway)) as opened:
        yield opened
