"""A call: its limits, and how it is ended early."""

from __future__ import annotations

import time

import gevent
import pytest

from ollama_proxy.errors import ClientGone, UpstreamTimeout
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import ERROR_FLUSH_TIMEOUT_S, ITEMS_PER_TURN, Call, pace


def call(**limits: float) -> Call:
    return Call(Timeouts(**limits))


class Aborts(list[int]):
    """Counts how often a call was cancelled."""

    def __call__(self) -> None:
        self.append(1)


# --- Call -----------------------------------------------------------------------------------------


def test_a_fresh_call_may_go_on() -> None:
    one = call(total_s=10)
    one.check()
    assert 9 < one.total_left_s() <= 10


def test_total_limit_is_an_error_that_names_it() -> None:
    one = call(total_s=10)
    one.started -= 10
    one.limit(one.timeouts)
    with pytest.raises(UpstreamTimeout, match="longer than 10 s"):
        one.check()
    with pytest.raises(UpstreamTimeout):
        one.total_left_s()


def test_time_for_which_a_call_is_held_is_not_part_of_its_total_limit() -> None:
    one = call(total_s=10)
    one.started -= 30
    one.hold()
    one.check()
    one.resume(25)
    assert 4 < one.total_left_s() <= 5
    one.limit(Timeouts(total_s=4))
    with pytest.raises(UpstreamTimeout, match="longer than 4 s"):
        one.check()


def test_the_callers_own_limit_counts_from_the_start_also_while_the_call_is_held() -> None:
    one = call(total_s=10)
    one.started -= 3
    one.limit_by_caller(None)
    assert one.total_left_s() > 9
    one.limit_by_caller(4500)
    one.hold()
    branch = one.branch()
    for each in (one, branch):
        assert 1 < each.total_left_s() <= 1.5
    one.limit_by_caller(2500)
    with pytest.raises(UpstreamTimeout, match=r"longer than 2\.5 s"):
        one.check()


def test_leaving_aborts_once() -> None:
    one, aborts = call(), Aborts()
    one.attach(aborts)
    one.leave()
    one.leave()
    assert (bool(one.ended), aborts) == (True, [1])


def test_leaving_outweighs_the_total_limit() -> None:
    one = call(total_s=10)
    one.started -= 10
    one.limit(one.timeouts)
    one.leave()
    with pytest.raises(ClientGone):
        one.check()


def test_leaving_with_nothing_to_abort_is_remembered() -> None:
    one, aborts = call(), Aborts()
    one.leave()
    with pytest.raises(ClientGone):
        one.attach(aborts)


def test_detached_work_is_left_alone() -> None:
    one, aborts = call(), Aborts()
    one.attach(aborts)
    one.detach()
    one.leave()
    assert aborts == []


def test_branch_leaves_with_its_parent_and_aborts_what_it_does() -> None:
    parent, aborts = call(), Aborts()
    near, far = parent.branch(), parent.branch().branch()
    near.attach(aborts)
    far.attach(aborts)
    parent.leave()
    assert (bool(near.ended), bool(far.ended), aborts) == (True, True, [1, 1])
    parent.leave()
    assert aborts == [1, 1]


def test_branch_of_a_call_whose_client_left_has_left_too() -> None:
    parent, aborts = call(), Aborts()
    parent.leave()
    with pytest.raises(ClientGone):
        parent.branch().attach(aborts)
    assert aborts == []


def test_parent_stays_when_a_branch_is_cancelled() -> None:
    parent, aborts = call(), Aborts()
    parent.attach(aborts)
    first, second = parent.branch(), parent.branch()
    first.leave()
    parent.check()
    second.check()
    assert (bool(first.ended), aborts) == (True, [])


def test_branch_ends_no_later_than_its_parent() -> None:
    parent = call(total_s=10)
    parent.started -= 9
    parent.limit(parent.timeouts)
    assert parent.branch().ends_at == parent.ends_at
    assert parent.branch(Timeouts(total_s=3600)).ends_at == parent.ends_at


def test_branch_may_end_earlier_by_limits_of_its_own() -> None:
    parent = call(total_s=10)
    branch = parent.branch(Timeouts(total_s=1, idle_s=2))
    assert (branch.timeouts.idle_s, parent.timeouts.total_s) == (2, 10)
    assert branch.total_left_s() <= 1 < 9 < parent.total_left_s()


@pytest.mark.parametrize(
    ("since", "stalled"), [(None, False), (0.0, False), (4.9, False), (5.1, True)]
)
def test_upload_is_stalled_after_its_limit(since: float | None, stalled: bool) -> None:
    one, now = call(send_idle_s=5), time.monotonic()
    one.reading_since = None if since is None else now - since
    assert one.is_upload_stalled(now) is stalled


def test_client_of_a_call_that_was_ended_has_less_time_to_take_the_error() -> None:
    one = call(send_idle_s=60)
    assert one.send_limit_s == 60
    one.leave()
    assert one.send_limit_s == ERROR_FLUSH_TIMEOUT_S


# Pauses.


def test_items_come_as_they_are() -> None:
    assert list(pace(range(3 * ITEMS_PER_TURN))) == list(range(3 * ITEMS_PER_TURN))


def test_others_run_after_every_so_many_items() -> None:
    reached, seen = 0, set[int]()

    def other() -> None:
        while True:
            seen.add(reached)
            gevent.sleep(0)

    greenlet = gevent.spawn(other)
    for item in pace(range(1, 3 * ITEMS_PER_TURN)):
        reached = item
    during = seen - {reached}
    greenlet.kill()
    assert during == {ITEMS_PER_TURN, 2 * ITEMS_PER_TURN}
