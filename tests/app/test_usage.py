"""Token counts in the access log, of answers whose upstream gives none, or nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import fault_upstream as do
from tests.rig import native_chat
from tests.rig.calls import FACES, TOKEN, access_line, config, whole
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.local import LocalGateway

CHATS = ["native chat", "openai chat", "anthropic messages", "openai responses"]
SAID = [native_chat.piece(f"word{n} ", model=MODEL) for n in range(20)]
LAST = native_chat.done(model=MODEL)


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    with LocalGateway(config(shared_upstream.url)) as gateway:
        yield gateway


def script(upstream: FaultUpstream, **counts: Any) -> None:
    """A stream of twenty words, and its last line with these counts."""
    upstream.script("/api/chat", [do.Lines([*SAID, LAST | counts])])


@pytest.mark.parametrize("face", CHATS)
def test_U22_answer_without_counts_is_estimated_and_marked(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: str
) -> None:
    script(upstream)
    assert whole(gateway, FACES[face], request_id).status == 200
    line = access_line(gateway, request_id)
    assert (line["state"], line["estimated"]) == ("ok", True)
    assert 10 <= line["eval_count"] <= 30
    assert line["prompt_eval_count"] > 0


@pytest.mark.parametrize("face", CHATS)
def test_U22_counts_of_the_upstream_are_no_estimate(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: str
) -> None:
    script(upstream, prompt_eval_count=7, eval_count=3)
    whole(gateway, FACES[face], request_id)
    line = access_line(gateway, request_id)
    assert (line["prompt_eval_count"], line["eval_count"], line["estimated"]) == (7, 3, None)


@pytest.mark.parametrize(
    ("face", "count"),
    [
        *((CHATS[0], count) for count in (-5, "many", 1e300, 10**15, True, [7])),
        *((face, -5) for face in CHATS[1:]),
    ],
)
def test_U23_counts_that_are_none_never_count(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, face: str, count: Any
) -> None:
    script(upstream, prompt_eval_count=count, eval_count=count)
    assert whole(gateway, FACES[face], request_id).status == 200
    line = access_line(gateway, request_id)
    assert (line["state"], line["estimated"]) == ("ok", True)
    assert 10 <= line["eval_count"] <= 30


def test_work_on_models_has_no_tokens(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script("/api/pull", [do.Lines([{"status": "success"}])])
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-Id": request_id}
    assert gateway.request("POST", "/api/pull", {"model": MODEL}, headers=headers).status == 200
    line = access_line(gateway, request_id)
    assert (line["eval_count"], line["estimated"]) == (None, None)
