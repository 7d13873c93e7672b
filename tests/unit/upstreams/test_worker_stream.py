"""Blocking work with limits: what it brings, how it ends, and that it lets go of what it holds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import gevent
import pytest

from ollama_proxy.errors import ClientGone, UpstreamCut, UpstreamTimeout
from ollama_proxy.settings.timeouts import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.worker_stream import AHEAD, WorkerStream

LIMITS = Timeouts(first_byte_s=0.2, idle_s=0.2, total_s=0.5)
PATIENT = Timeouts(first_byte_s=5, idle_s=5, total_s=5)


class Work:
    """Brings `items`, waits where there is None, and notes that it has let go."""

    def __init__(self, *items: int | None, failure: Exception | None = None) -> None:
        self.items = items
        self.failure = failure
        self.brought = 0
        self.let_go = False

    def __call__(self) -> Generator[int]:
        try:
            for item in self.items:
                if item is None:
                    gevent.sleep(10)
                else:
                    self.brought += 1
                    yield item
            if self.failure is not None:
                raise self.failure
        finally:
            self.let_go = True


def named(error: Exception) -> Exception:
    return UpstreamCut(detail=type(error).__name__)


@pytest.fixture
def feed_of() -> Iterator[Callable[..., WorkerStream[int]]]:
    feeds: list[WorkerStream[int]] = []

    def begin(work: Work, limits: Timeouts = PATIENT, call: Call | None = None) -> WorkerStream[int]:
        feeds.append(WorkerStream(work, call or Call(limits), failure=named))
        return feeds[-1]

    yield begin
    for feed in feeds:
        feed.close()


def test_items_come_in_their_order_and_then_nothing(feed_of: Callable[..., WorkerStream[int]]) -> None:
    feed = feed_of(Work(1, 2, 3))
    taken: list[int] = []
    while items := feed.take():
        taken += items
    assert (taken, items, feed.take()) == ([1, 2, 3], [], [])


def test_a_failure_comes_behind_the_items_in_our_words(feed_of: Callable[..., WorkerStream[int]]) -> None:
    feed = feed_of(Work(1, failure=KeyError("secret")))
    assert feed.take() == [1]
    for _ in range(2):
        with pytest.raises(UpstreamCut) as raised:
            feed.take()
    assert raised.value.detail == "KeyError"


def test_silence_is_none(feed_of: Callable[..., WorkerStream[int]]) -> None:
    assert feed_of(Work(None)).take(0.01) is None


@pytest.mark.parametrize(
    ("work", "limits", "says"),
    [
        (Work(None), LIMITS, "did not begin to answer in 0.2 s"),
        (Work(1, None), LIMITS, "was silent for 0.2 s"),
        (Work(None), Timeouts(first_byte_s=9, idle_s=9, total_s=0.2), "longer than 0.2 s in total"),
    ],
    ids=["first byte", "idle", "total"],
)
@pytest.mark.parametrize("wait_s", [None, 0.05], ids=["", "with heartbeats"])
def test_limits_end_the_wait(
    feed_of: Callable[..., WorkerStream[int]], work: Work, limits: Timeouts, says: str, wait_s: float | None
) -> None:
    feed = feed_of(work, limits)
    with pytest.raises(UpstreamTimeout, match=says):
        while True:
            assert feed.take(wait_s) != []


def test_a_client_that_leaves_ends_the_work(feed_of: Callable[..., WorkerStream[int]]) -> None:
    work, call = Work(None), Call(PATIENT)
    feed = feed_of(work, call=call)
    leaving = gevent.spawn_later(0.05, call.leave)
    with pytest.raises(ClientGone):
        feed.take()
    leaving.join()
    gevent.sleep(0.01)
    assert work.let_go


def test_a_client_that_has_left_begins_no_work(feed_of: Callable[..., WorkerStream[int]]) -> None:
    call = Call(PATIENT)
    call.leave()
    work = Work(1)
    with pytest.raises(ClientGone):
        feed_of(work, call=call)
    gevent.sleep(0.01)
    assert work.brought == 0


@pytest.mark.parametrize("items", [(None,), range(10 * AHEAD)], ids=["that waits", "that is far ahead"])
def test_closing_ends_work(feed_of: Callable[..., WorkerStream[int]], items: tuple[int | None, ...]) -> None:
    work = Work(*items)
    with closing(feed_of(work)):
        gevent.sleep(0.01)
        assert not work.let_go
    gevent.sleep(0.01)
    assert work.let_go


def test_work_is_not_far_ahead_of_who_takes(feed_of: Callable[..., WorkerStream[int]]) -> None:
    work = Work(*range(10 * AHEAD))
    feed = feed_of(work)
    gevent.sleep(0.01)
    assert work.brought <= AHEAD + 1
    taken = 0
    while items := feed.take():
        taken += len(items)
    assert taken == 10 * AHEAD
