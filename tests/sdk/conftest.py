"""Fixtures of the client suites: a gateway in front of scripted models, and one
that answers by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.golden.blocking import Blocking
from tests.integration.conftest import demo_gateway, gateway, healed, shared_gateway, upstream
from tests.rig.gateway import Gateway
from tests.sdk.clients import Clients
from tests.sdk.scripted_models import ScriptedModels

__all__ = ["demo_gateway", "gateway", "healed", "shared_gateway", "upstream"]

# Read while it is imported: without it litellm asks the internet what models cost.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedModels]:
    """One upstream for the module, whose models are scripts. Tests ask for `upstream`."""
    with ScriptedModels() as server:
        yield server


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
