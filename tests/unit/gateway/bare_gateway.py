"""A gateway without an application in front of it, and exchanges for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ollama_proxy.dialects import find_dialect
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.settings import settings_from
from ollama_proxy.upstreams.call import Call
from tests.rig.deadline import wait_until
from tests.rig.in_process import TOKEN


@contextmanager
def open_gateway(**config: Any) -> Iterator[Gateway]:
    """A gateway with these sections in its configuration."""
    sections = {"auth": {"generate_tokens": [TOKEN]}, **config}
    gateway = Gateway(settings_from(json.dumps(sections).encode(), Path("config.yaml"), {}))
    try:
        yield gateway
    finally:
        gateway.fleet.close()


def wait_for_lists(gateway: Gateway, without: str = "") -> None:
    """Returns when the models of every upstream are known, except for those of one that is down."""
    wait_until(lambda: all(node.name == without for node in gateway.fleet.refresh(max_age_s=60)))


def new_exchange(gateway: Gateway, **fields: Any) -> Exchange:
    """An exchange that has just begun."""
    dialect = find_dialect({"PATH_INFO": "/"})
    return Exchange(
        "id", "POST", "/", "127.0.0.1", dialect, Call(gateway.settings.timeouts), **fields
    )
