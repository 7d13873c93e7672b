"""Work on models: it may take long, it is never done twice, and it opens no
way around the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.face import local_gateway
from tests.rig.fault_upstream import Cut, FaultUpstream, Json, Lines, ReadBody, Wait
from tests.rig.local import LocalGateway

LIMIT_S = 0.25


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """It keeps connections to its upstream."""
    limits = {"first_byte_s": LIMIT_S, "idle_s": LIMIT_S, "total_s": 2 * LIMIT_S}
    with local_gateway(shared_upstream, over_sockets=True, timeouts=limits) as running:
        yield running


def test_a_silent_pull_outlives_the_limits_of_answers(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/pull", [ReadBody(), Wait(3 * LIMIT_S), Json({"status": "success"})])
    assert gateway.ask("/api/pull", {"model": "m", "stream": False}).json() == {"status": "success"}


def test_a_pull_may_be_silent_between_two_lines(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    lines = [{"status": "verifying sha256 digest"}, {"status": "success"}]
    upstream.script("/api/pull", [ReadBody(), Lines(lines, delay_s=3 * LIMIT_S)])
    answer = gateway.ask("/api/pull", {"model": "m"})
    assert [line["status"] for line in map(json.loads, answer.body.splitlines())] == [
        line["status"] for line in lines
    ]


def test_an_answer_of_a_model_has_its_limits_all_the_same(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [ReadBody(), Wait(5 * LIMIT_S), Json({"done": True})])
    assert gateway.ask("/api/chat", {"model": "m", "messages": [], "stream": False}).status == 504


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/delete", {"model": "m"}),
        ("POST", "/api/copy", {"source": "m", "destination": "n"}),
        ("POST", "/api/create", {"model": "m", "from": "n"}),
    ],
)
def test_what_changes_models_is_never_sent_twice(
    gateway: LocalGateway, upstream: FaultUpstream, method: str, path: str, body: Any
) -> None:
    assert gateway.ask("/api/tags").status == 200  # leaves a connection that can be used again
    upstream.clear()
    upstream.script(path, [ReadBody(), Cut()])
    assert gateway.ask(path, body, method=method).status == 502
    assert [seen.path for seen in upstream.requests if seen.path == path] == [path]


def test_a_model_of_somebody_elses_server_is_refused(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.clear()
    answer = gateway.ask(
        "/api/create", {"model": "m", "from": "n", "remote_host": "https://ollama.com"}
    )
    assert answer.status == 403
    assert [seen for seen in upstream.requests if seen.path == "/api/create"] == []


def test_the_rendered_prompt_is_nobodys_business(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    body = {"model": "m", "messages": [], "_debug_render_only": True}
    assert gateway.ask("/api/chat", body).status == 400
