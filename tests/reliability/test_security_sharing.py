"""One team has far more requests than there are slots; another one has one at a time. SHARING_S
says for how many seconds: 8 if it is not set, 15 in `make long`, and in `make soak` as long as the
rest of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.reliability.asked import CHAT, Asked, ask
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row, allowed
from tests.rig.boxes import WorkBox, running
from tests.rig.coordinator import counts
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_until
from tests.rig.http_client import bearer, encode_request

OTHERS = "token-of-another-team"
CLIENTS, BOXES, SLOTS, TAKES_S = 200 if BOTH_DOORS else 100, 2, 2, 0.25
#: A slot is free after so long at most, and then it is the other team's turn; the
#: machine gets as long again.
BOUND_S = allowed(2 * TAKES_S)
#: For how long the first team has requests, and how long those take that are left then.
SECONDS = float(os.environ.get("SHARING_S") or (15 if BOTH_DOORS else 8))
LAST_S = CLIENTS / (BOXES * SLOTS / TAKES_S)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    tokens = [{"name": "team", "token": TOKEN}, {"name": "others", "token": OTHERS}]
    config = {"auth": {"generate_tokens": tokens}, "queue": {"max_waiting": CLIENTS}}
    boxes = [
        WorkBox(f"box{number}", ["m"], slots=SLOTS, takes_s=TAKES_S)
        for number in range(1, BOXES + 1)
    ]
    with (
        running(*boxes),
        Rig(
            config=config, workers=2, boxes=boxes, upstream={"concurrency": SLOTS}, shares=True
        ) as ready,
    ):
        yield ready


def test_s21_a_team_keeps_every_box_busy(row: Row) -> None:
    """The other team's requests start as soon as any slot is free, however many
    wait; nobody is refused."""
    others: list[Asked] = []
    with Crowd(row.port, [Visitor(call(row)) for _ in range(CLIENTS)]) as crowd:
        began = time.monotonic()
        wait_until(
            lambda: counts(row.gateway)[1] > CLIENTS / 2,
            10,
            lambda: f"{counts(row.gateway)} run and wait",
        )
        while counts(row.gateway)[1] > CLIENTS / 4:
            others.append(ask(row, CHAT, bearer(OTHERS)))
            if time.monotonic() - began < SECONDS - LAST_S:
                for _ in range(CLIENTS + len(crowd.over) - len(crowd.visitors)):
                    crowd.invite(Visitor(call(row)))
        crowd.wait_over(60)
        row.measured("lasted", time.monotonic() - began, "s")
    assert {asked.status for asked in others} | {
        visitor.answer().status for visitor in crowd.visitors
    } == {200}
    assert len(others) > SECONDS / 2
    assert max(box.most for box in row.rig.boxes) == SLOTS
    waited_s = sorted(asked.seconds - TAKES_S for asked in others)
    assert waited_s[len(waited_s) // 2] < BOUND_S and waited_s[-1] < 2 * BOUND_S
    row.measured("the other team's requests", len(others), "")
    row.measured("started within", waited_s[-1], "s")
    row.measured(
        "the first team's", max(visitor.was_cut_after_s for visitor in crowd.visitors), "s"
    )


def call(row: Row) -> bytes:
    """The bytes of a request of the first team."""
    headers = {**bearer(TOKEN), "X-Request-Id": row.new_id()}
    return encode_request(
        f"127.0.0.1:{row.port}",
        "POST",
        CHAT.face.path,
        {**CHAT.face.body, "stream": False},
        headers,
    )
