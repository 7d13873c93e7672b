"""The two kinds of an official Python client, which take the same options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.golden.face import TOKEN
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.gateway import Gateway


def each_error(library: Any) -> Any:
    """A test for each status that an official client tells apart, with its exception."""
    kinds = {
        400: library.BadRequestError,
        403: library.PermissionDeniedError,
        404: library.NotFoundError,
        429: library.RateLimitError,
        500: library.InternalServerError,
        503: library.InternalServerError,
    }
    return pytest.mark.parametrize(("status", "kind"), kinds.items())


def check_freed(client: Any, upstream: FaultUpstream) -> None:
    """A client that has given up has freed the upstream, which would wait longer."""
    # An asynchronous one may close its connection only when its loop runs once more.
    client.close()
    upstream.wait_peer_closed(upstream.wait_for_request().connection)


def have_model(upstream: FaultUpstream, name: str) -> None:
    """The upstream has this model and no other."""
    tagged = name if ":" in name else f"{name}:latest"
    upstream.script("/api/tags", [Json({"models": [{"name": tagged}]})])


class Clients(NamedTuple):
    """A client, its asynchronous kind, and the path that its base URL ends with."""

    synchronous: Callable[..., Any]
    asynchronous: Callable[..., Any]
    path: str

    def options(self, gateway: Gateway) -> dict[str, Any]:
        """What a client of the gateway needs."""
        return {"base_url": f"{gateway.url}{self.path}", "api_key": TOKEN, "max_retries": 0}
