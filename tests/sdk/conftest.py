"""Fixtures of the client suites: a gateway in front of scripted models, and one that answers by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.conftest import demo_gateway, gateway, healed, shared_gateway, upstream
from tests.sdk.scripted_models import ScriptedModels

__all__ = ["demo_gateway", "gateway", "healed", "shared_gateway", "upstream"]

# Read while it is imported: without it litellm asks the internet what models cost.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedModels]:
    """One upstream for the module, whose models are scripts. Tests ask for `upstream`."""
    with ScriptedModels() as server:
        yield server
