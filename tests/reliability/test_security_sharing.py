"""One team has far more requests than there are slots; another one has one at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reliability.asked import CHAT, Asked, ask
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig.boxes import WorkBox, running
from tests.rig.coordinator import counts
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_until
from tests.rig.http_client import bearer, encode_request

OTHERS = "token-of-another-team"
CLIENTS, BOXES, SLOTS, TAKES_S = 200, 2, 2, 0.25
#: A slot is free after so long at most, and then it is the other team's turn; the machine gets as long again.
BOUND_S = 2 * TAKES_S


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    tokens = [{"name": "team", "token": TOKEN}, {"name": "others", "token": OTHERS}]
    config = {"auth": {"generate_tokens": tokens}, "queue": {"max_waiting": CLIENTS}}
    boxes = [WorkBox(f"box{number}", ["m"], slots=SLOTS, takes_s=TAKES_S) for number in range(1, BOXES + 1)]
    with (
        running(*boxes),
        Rig(config=config, boxes=boxes, upstream={"concurrency": SLOTS}, shares=True) as ready,
    ):
        yield ready


def test_s21_a_team_keeps_every_box_busy(row: Row) -> None:
    """The other team's requests start as soon as any slot is free, however many wait; nobody is refused."""
    visitors = [Visitor(call(row)) for _ in range(CLIENTS)]
    others: list[Asked] = []
    with Crowd(row.port, visitors) as crowd:
        wait_until(lambda: counts(row.gateway)[1] > CLIENTS / 2, 10, lambda: f"{counts(row.gateway)} run and wait")
        while counts(row.gateway)[1] > CLIENTS / 4:
            others.append(ask(row, CHAT, bearer(OTHERS)))
        crowd.wait_over(60)
    assert {asked.status for asked in others} | {visitor.answer().status for visitor in visitors} == {200}
    assert len(others) > 5
    assert max(box.most for box in row.rig.boxes) == SLOTS
    waited_s = sorted(asked.seconds - TAKES_S for asked in others)
    assert waited_s[len(waited_s) // 2] < BOUND_S and waited_s[-1] < 2 * BOUND_S
    row.measured("the other team's requests", len(others), "")
    row.measured("started within", waited_s[-1], "s")
    row.measured("the first team's", max(visitor.was_cut_after_s for visitor in visitors), "s")


def call(row: Row) -> bytes:
    """The bytes of a request of the first team."""
    headers = {**bearer(TOKEN), "X-Request-Id": row.new_id()}
    return encode_request(f"127.0.0.1:{row.port}", "POST", CHAT.face.path, {**CHAT.face.body, "stream": False}, headers)
