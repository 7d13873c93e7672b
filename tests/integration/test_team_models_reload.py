"""Edits of `models` while the gateway runs: every worker follows within the promised time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.calls import FACES, config
from tests.rig.deadline import wait_until
from tests.rig.edits import FOLLOWED_S, edit, problems
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer

pytestmark = pytest.mark.slow

#: how often a connection may meet the same one of two workers before it is no chance any more
TRIES = 16

Models = dict[str, dict[str, Any]]

BEFORE: Models = {"coder": {"target": "tiny-test"}, "limited": {"clamp": {"num_ctx": 64}}}


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    with Gateway(config(shared_upstream.url, models=BEFORE)) as running:
        yield running
        assert "Traceback" not in running.output()


def chat(gateway: Gateway, model: str, **fields: Any) -> Answer:
    face = FACES["openai chat"]
    return gateway.ask(face.path, {**face.body, "model": model, **fields})


def targets(gateway: Gateway, upstream: FaultUpstream, model: str) -> set[str]:
    """What the upstream is asked for by whichever worker answers."""
    upstream.clear()
    answers = [chat(gateway, model) for _ in range(TRIES)]
    assert {answer.status for answer in answers} == {200}
    return {seen.json()["model"] for seen in upstream.requests if seen.path == "/api/chat"}


def listed(gateway: Gateway) -> set[tuple[str, ...]]:
    answers = [gateway.ask("/v1/models").json()["data"] for _ in range(TRIES)]
    return {tuple(row["id"] for row in rows) for rows in answers}


def test_alias_that_is_added_works_in_every_worker(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    workers = gateway.worker_pids()
    assert targets(gateway, upstream, "fresh") == {"fresh"}
    edit(gateway, config(upstream.url, models={**BEFORE, "fresh": {"target": "tiny-test"}}))
    assert targets(gateway, upstream, "fresh") == {"tiny-test"}
    assert listed(gateway) == {("tiny-test:latest", "coder", "fresh")}
    assert gateway.worker_pids() == workers
    assert not any(problems(gateway))


def test_alias_that_moves_or_goes_is_followed(gateway: Gateway, upstream: FaultUpstream) -> None:
    edit(
        gateway,
        config(upstream.url, models={"coder": {"target": "tiny-test:latest", "hidden": True}}),
    )
    assert targets(gateway, upstream, "coder") == {"tiny-test:latest"}
    assert listed(gateway) == {("tiny-test:latest",)}
    edit(gateway, config(upstream.url, models={}))
    assert targets(gateway, upstream, "coder") == {"coder"}


def test_limit_that_changes_is_followed(gateway: Gateway, upstream: FaultUpstream) -> None:
    edit(gateway, config(upstream.url, models={"limited": {"clamp": {"num_ctx": 128}}}))
    said = {
        chat(gateway, "limited", num_ctx=4096).headers.get("X-Ollama-Proxy-Clamped")
        for _ in range(TRIES)
    }
    assert said == {"num_ctx=128"}


def test_broken_edit_leaves_the_aliases_as_they_are(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    edit(gateway, config(upstream.url, models={"coder": {"target": "tiny-test"}}))
    gateway.write_config(config(upstream.url, models={"coder": {"target": "other", "thnik": True}}))
    wait_until(lambda: all(problems(gateway)), FOLLOWED_S, "nobody complains")
    assert all("thnik" in str(problem) for problem in problems(gateway))
    assert targets(gateway, upstream, "coder") == {"tiny-test"}
