"""Closed, open, half-open: when something that has failed may be asked again."""

from __future__ import annotations

import random

import pytest

from ollama_proxy.upstreams.fleet.breaker import (
    FIRST_OPEN_S,
    LONGEST_OPEN_S,
    SLOW_START_S,
    TRIAL_S,
    Breaker,
)
from tests.rig.clock import ManualClock


def opened(clock: ManualClock, threshold: int = 3) -> Breaker:
    breaker = Breaker(threshold, clock=clock)
    for _ in range(threshold):
        breaker.failed()
    return breaker


def test_it_stays_closed_until_failures_in_a_row_reach_the_threshold(clock: ManualClock) -> None:
    breaker = Breaker(3, clock=clock)
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        assert (breaker.state, breaker.allows(), breaker.failures > 0) == ("closed", True, True)
        breaker.succeeded()
        assert breaker.failures == 0
    breaker.failed()
    breaker.failed()
    breaker.failed()
    assert (breaker.state, breaker.allows(), breaker.is_closed) == ("open", False, False)


def test_it_is_half_open_after_a_while_and_lets_one_trial_through(clock: ManualClock) -> None:
    breaker = opened(clock)
    assert breaker.retry_after_s() == FIRST_OPEN_S
    clock.advance(FIRST_OPEN_S)
    assert (breaker.state, breaker.allows(), breaker.retry_after_s()) == ("half-open", True, 0.0)
    breaker.begin()
    assert not breaker.allows()


def test_a_trial_that_succeeds_closes_it(clock: ManualClock) -> None:
    breaker = opened(clock)
    clock.advance(FIRST_OPEN_S)
    breaker.begin()
    breaker.succeeded()
    assert (breaker.state, breaker.allows(), breaker.failures > 0) == ("closed", True, False)


def test_each_trial_that_fails_doubles_the_wait_up_to_a_limit(clock: ManualClock) -> None:
    breaker, waits = opened(clock), []
    for _ in range(6):
        waits.append(breaker.retry_after_s())
        clock.advance(waits[-1])
        breaker.begin()
        breaker.failed()
    assert waits == [1.0, 2.0, 4.0, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]


def test_a_trial_that_says_nothing_makes_room_for_another(clock: ManualClock) -> None:
    breaker = opened(clock)
    clock.advance(FIRST_OPEN_S)
    breaker.begin()
    clock.advance(TRIAL_S - 0.1)
    assert not breaker.allows()
    clock.advance(0.2)
    assert breaker.allows()


def test_a_request_that_was_let_through_while_it_is_open_is_no_trial(clock: ManualClock) -> None:
    breaker = opened(clock)
    breaker.begin()
    clock.advance(FIRST_OPEN_S)
    assert breaker.allows()


def test_failures_of_requests_that_were_on_their_way_do_not_count_twice(clock: ManualClock) -> None:
    breaker = opened(clock)
    for _ in range(50):
        breaker.failed()
    assert breaker.retry_after_s() == FIRST_OPEN_S


def test_a_trip_needs_no_count(clock: ManualClock) -> None:
    breaker = Breaker(100, clock=clock)
    breaker.failed(opens=True)
    assert (breaker.state, breaker.retry_after_s()) == ("open", FIRST_OPEN_S)
    breaker.failed(opens=True)
    assert breaker.retry_after_s() == FIRST_OPEN_S
    clock.advance(FIRST_OPEN_S)
    breaker.failed(opens=True)
    assert breaker.retry_after_s() == 2 * FIRST_OPEN_S


@pytest.mark.parametrize(
    ("since_s", "share"),
    [(0.0, 0.1), (0.5, 0.1), (2.0, 0.2), (5.0, 0.5), (SLOW_START_S, 1.0), (500.0, 1.0)],
)
def test_after_a_recovery_its_share_grows(clock: ManualClock, since_s: float, share: float) -> None:
    breaker = opened(clock)
    breaker.succeeded()
    clock.advance(since_s)
    assert breaker.share() == pytest.approx(share)


def test_a_success_that_is_no_recovery_keeps_the_share_whole(clock: ManualClock) -> None:
    breaker = Breaker(3, clock=clock)
    breaker.failed()
    breaker.succeeded()
    assert breaker.share() == 1.0


def test_breakers_do_not_all_end_their_wait_at_the_same_moment(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr(random, "uniform", random.Random(1).uniform)
    waits = {opened(clock).retry_after_s() for _ in range(20)}
    assert len(waits) == 20
    assert all(0.9 * FIRST_OPEN_S <= wait_s <= 1.1 * FIRST_OPEN_S for wait_s in waits)
