"""Several answers to one request, on several boxes: the failure of one is not
held against the others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.reliability.asked import Asked, Way, ask, wait_until_forgiven
from tests.reliability.rig import MODELS, TOKEN, Rig, Row
from tests.rig.boxes import Box, running
from tests.rig.calls import CHAT_LINE, FACES, TEXT_LINE
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Cut, Lines
from tests.rig.http_client import bearer, request

CHOICES = Way(FACES["openai chat"], True), {"n": 4}
PROMPTS = Way(FACES["openai completions"], False), {"prompt": ["a", "b", "c", "d"]}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    boxes = [Box(f"box{number}", MODELS, loaded=MODELS) for number in range(1, 5)]
    with running(*boxes), Rig(boxes=boxes) as rig:
        yield rig


def avoided(row: Row) -> list[set[str]]:
    """The boxes that are avoided for a model, by several answers of each worker."""

    def told(_: int) -> set[str]:
        states = request(row.gateway.url, path="/health", headers=bearer(TOKEN)).json()["upstreams"]
        return {name for name, box in states.items() if box["failing_models"]}

    # Several at a time, and past nginx with its kept connections, so that every worker is asked.
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(told, range(24)))


def test_u32_one_box_fails_with_one_of_four_answers(row: Row) -> None:
    """The box that failed is avoided in the end, and no other one ever is. The log blames that one
    alone, and names every box that the request went to."""
    row.allow(502)
    wait_until_forgiven(row)
    for path, line in (("/api/chat", CHAT_LINE), ("/api/generate", TEXT_LINE)):
        row.rig.boxes[0].script(path, [Lines([line]), Cut()])
    calls: list[Asked] = []

    def is_avoided() -> bool:
        for way, fields in (CHOICES, PROMPTS):
            calls.append(ask(row, way, **fields))
        found = avoided(row)
        assert not set().union(*found) - {"box1"}, found
        return all(found)

    wait_until(is_avoided, 60, lambda: str(avoided(row)))
    lines = {call.id: row.record(call.id) for call in calls}
    failed = {id for id, line in lines.items() if line["state"] == "upstream_error"}
    assert all("box1" in lines[id]["upstream"].split(",") for id in failed)
    assert any(line["upstream"].count(",") == 3 for line in lines.values())
    blamed = {
        line["upstream"] for line in row.gateway.log_lines("events") if line.get("id") in failed
    }
    assert blamed == {"box1"}
    row.measured("requests until it was avoided", len(calls), "")
