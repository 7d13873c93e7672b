"""Requests that are admitted in advance are used by their flow, asked for again in
time, and given back soon."""

from __future__ import annotations

import pytest

from ollama_proxy.coordination.advances import MOST_AHEAD, Advance, Advances
from ollama_proxy.coordination.kept_slots import KEPT_S
from ollama_proxy.coordination.limits import Allowance, Remaining
from tests.rig.clock import ManualClock

ALLOWANCE = Allowance(Remaining(1000, 900, 1.0), Remaining(9000, 8000, 1.0))


@pytest.fixture
def advances(clock: ManualClock) -> Advances:
    return Advances(clock=clock)


def take(advances: Advances, count: int = 1, tokens: int = 10) -> list[Advance | None]:
    taken = [advances.take("team", tokens) for _ in range(count)]
    return [each and each[0] for each in taken]


def test_only_requests_of_the_flow_that_are_small_enough_use_them(advances: Advances) -> None:
    advances.add("team", "e+", 2, 10, ALLOWANCE)
    assert advances.take("other", 1) is None
    assert take(advances, tokens=11) == [None]
    taken = [advances.take("team", 10), advances.take("team", 1)]
    assert [each and each[1] for each in taken] == [
        Allowance(Remaining(1000, 899, 1.0), Remaining(9000, 7990, 1.0)),
        Allowance(Remaining(1000, 898, 1.0), Remaining(9000, 7980, 1.0)),
    ]
    assert take(advances) == [None]


def test_one_request_asks_for_more_while_others_use_the_rest(advances: Advances) -> None:
    assert advances.count_wanted("team") == 0  # the first one
    assert [advances.count_wanted("team"), advances.count_wanted("team")] == [MOST_AHEAD, 0]
    advances.add("team", "e+", 8, 10, ALLOWANCE)
    assert [bool(each) for each in take(advances, 7)] == [*(6 * [True]), False]
    assert advances.count_wanted("team") == MOST_AHEAD
    assert [bool(each) for each in take(advances, 3)] == [True, True, False]


def test_what_became_of_each_request_is_reported_once(
    advances: Advances, clock: ManualClock
) -> None:
    advances.add("team", "e+", 4, 10, ALLOWANCE)
    first, second, refused = take(advances, 3)
    assert first and second and refused
    assert advances.report() == []
    advances.end(first, 25)
    advances.end(refused, None)
    assert advances.report() == [("e+", 1, 25, 1, False)]
    clock.advance(KEPT_S)
    assert advances.report() == [("e+", 0, 0, 1, False)]  # what has not begun
    assert take(advances) == [None]
    assert not advances
    advances.end(second, 5)
    assert advances and advances.report() == [("e+", 1, 5, 0, True)]
    assert not advances


def test_what_a_flow_has_is_replaced(advances: Advances) -> None:
    advances.add("team", "a+", 2, 10, ALLOWANCE)
    (taken,) = take(advances)
    advances.add("team", "b+", 3, 10, ALLOWANCE)
    assert advances.report() == [("a+", 0, 0, 1, False)]
    assert taken
    advances.end(taken, 1)
    assert advances.report() == [("a+", 1, 1, 0, True)]
