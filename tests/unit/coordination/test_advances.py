"""Requests that are admitted in advance are used by their flow, asked for again in time, and given back soon."""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent
import pytest

from ollama_proxy.coordination.advances import MOST_AHEAD, Advances
from ollama_proxy.coordination.limits import Allowance, Remaining

ALLOWANCE = Allowance(Remaining(1000, 900, 1.0), Remaining(9000, 8000, 1.0))


@pytest.fixture
def given_back() -> list[str]:
    return []


@pytest.fixture
def advances(given_back: list[str]) -> Advances:
    def give_back(exchanges: Sequence[str]) -> None:
        given_back.extend(exchanges)

    return Advances(give_back)


def take_ids(advances: Advances, count: int, tokens: int = 10) -> list[str | None]:
    taken = [advances.take("team", tokens) for _ in range(count)]
    return [each and each[0] for each in taken]


def test_only_requests_of_the_flow_that_are_small_enough_use_them(advances: Advances) -> None:
    advances.add("team", ["e+0", "e+1"], 10, ALLOWANCE)
    assert advances.take("other", 1) is None
    assert take_ids(advances, 1, tokens=11) == [None]
    assert [advances.take("team", 10), advances.take("team", 1)] == [
        ("e+1", Allowance(Remaining(1000, 899, 1.0), Remaining(9000, 7990, 1.0))),
        ("e+0", Allowance(Remaining(1000, 898, 1.0), Remaining(9000, 7980, 1.0))),
    ]
    assert take_ids(advances, 1) == [None]


def test_one_request_asks_for_more_while_others_use_the_rest(advances: Advances) -> None:
    assert advances.count_wanted("team") == 0  # the first one
    assert [advances.count_wanted("team"), advances.count_wanted("team")] == [MOST_AHEAD, 0]
    advances.add("team", list("abcdefgh"), 10, ALLOWANCE)
    assert take_ids(advances, 7) == [*"hgfedc", None]
    assert advances.count_wanted("team") == MOST_AHEAD
    assert take_ids(advances, 3) == ["b", "a", None]


def test_what_does_not_begin_is_given_back(advances: Advances, given_back: list[str]) -> None:
    advances.add("team", ["a"], 10, ALLOWANCE)
    advances.add("team", ["b", "c"], 10, ALLOWANCE)
    assert given_back == ["a"]
    assert take_ids(advances, 1) == ["c"]
    ends_at = time.monotonic() + 10
    while given_back != ["a", "b"]:
        assert time.monotonic() < ends_at
        gevent.sleep(0.01)
    assert take_ids(advances, 1) == [None]
    assert advances.count_wanted("team") == 0


def test_what_a_lost_coordinator_admitted_is_forgotten(advances: Advances, given_back: list[str]) -> None:
    advances.add("team", ["a"], 10, ALLOWANCE)
    advances.clear()
    assert take_ids(advances, 1) == [None]
    assert not given_back
