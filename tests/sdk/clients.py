"""The two kinds of an official Python client, which take the same options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.golden.face import TOKEN
from tests.rig.gateway import Gateway


class Clients(NamedTuple):
    """A client, its asynchronous kind, and the path that its base URL ends with."""

    synchronous: Callable[..., Any]
    asynchronous: Callable[..., Any]
    path: str

    def options(self, gateway: Gateway) -> dict[str, Any]:
        """What a client of the gateway needs."""
        return {"base_url": f"{gateway.url}{self.path}", "api_key": TOKEN, "max_retries": 0}
