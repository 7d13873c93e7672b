"""Edits of `models` while the gateway runs; integration/test_reload.py has edits of the file, which
every worker follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.calls import FACES, config
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway

Models = dict[str, dict[str, Any]]

BEFORE: Models = {"coder": {"target": "tiny-test"}, "limited": {"clamp": {"num_ctx": 64}}}


@pytest.fixture
def gateway(upstream: FaultUpstream) -> Iterator[LocalGateway]:
    with LocalGateway(config(upstream.url, models=BEFORE)) as running:
        yield running


def edit(gateway: LocalGateway, upstream: FaultUpstream, models: Models) -> None:
    gateway.apply(config(upstream.url, models=models))


def chat(gateway: LocalGateway, model: str, **fields: Any) -> Answer:
    face = FACES["openai chat"]
    return gateway.ask(face.path, {**face.body, "model": model, **fields})


def target(gateway: LocalGateway, upstream: FaultUpstream, model: str) -> Any:
    """The model that the upstream is asked for."""
    assert chat(gateway, model).status == 200
    return upstream.requests[-1].json()["model"]


def listed(gateway: LocalGateway) -> list[str]:
    return [row["id"] for row in gateway.ask("/v1/models").json()["data"]]


def test_alias_that_is_added_works(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert target(gateway, upstream, "fresh") == "fresh"
    edit(gateway, upstream, {**BEFORE, "fresh": {"target": "tiny-test"}})
    assert target(gateway, upstream, "fresh") == "tiny-test"
    assert listed(gateway) == ["tiny-test:latest", "coder", "fresh"]


def test_alias_that_moves_or_goes_is_followed(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    edit(gateway, upstream, {"coder": {"target": "tiny-test:latest", "hidden": True}})
    assert target(gateway, upstream, "coder") == "tiny-test:latest"
    assert listed(gateway) == ["tiny-test:latest"]
    edit(gateway, upstream, {})
    assert target(gateway, upstream, "coder") == "coder"


def test_limit_that_changes_is_followed(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    edit(gateway, upstream, {"limited": {"clamp": {"num_ctx": 128}}})
    answer = chat(gateway, "limited", num_ctx=4096)
    assert answer.headers.get("X-Ollama-Proxy-Clamped") == "num_ctx=128"
