"""Streams of blocking work, several as one and a single one: items, failures,
and what is left behind."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gevent
import pytest

from ollama_proxy.errors import ClientGone, UpstreamCut, UpstreamTimeout
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.merged_streams import AHEAD, Ended, MergedStreams, WorkerStream

Step = str | float | Exception


class Work:
    """A stream by a script: gives a word or a whole number, waits so many seconds, or fails; knows
    whether it was begun and closed."""

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.given = 0
        self.begun = self.closed = False

    def __call__(self) -> Generator[Any]:
        self.begun = True
        try:
            for step in self._steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    gevent.sleep(step)
                else:
                    self.given += 1
                    yield step
        finally:
            self.closed = True


@pytest.fixture
def merged() -> Iterator[Callable[..., MergedStreams[str]]]:
    opened: list[MergedStreams[str]] = []

    def start(*works: Work, ahead: int = 4) -> MergedStreams[str]:
        opened.append(MergedStreams(works, ahead=ahead))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def taken(streams: MergedStreams[str], count: int) -> list[tuple[int, Any]]:
    """The next items; fails if they do not come."""
    items: list[tuple[int, Any]] = []
    while len(items) < count:
        assert streams.wait(2), items
        while (item := streams.take()) is not None:
            items.append(item)
    return items


def test_items_come_as_they_arrive_and_each_stream_keeps_its_order(
    merged: Callable[..., MergedStreams[str]],
) -> None:
    items = taken(merged(Work("a", 0.05, "b"), Work("x", "y")), 6)
    assert [item for index, item in items if index == 0] == ["a", "b", Ended()]
    assert [item for index, item in items if index == 1] == ["x", "y", Ended()]
    assert items.index((1, Ended())) < items.index((0, "b"))


def test_a_failure_comes_after_the_items_before_it_and_ends_only_its_own_stream(
    merged: Callable[..., MergedStreams[str]],
) -> None:
    failure = ValueError("broken")
    streams = merged(Work("a", failure), Work(0.05, "x"))
    items = taken(streams, 4)
    assert items == [(0, "a"), (0, Ended(failure)), (1, "x"), (1, Ended())]
    assert streams.failure is failure


def test_the_first_failure_is_known_before_its_items_are_taken(
    merged: Callable[..., MergedStreams[str]],
) -> None:
    first = ValueError("first")
    streams = merged(Work(0.02, ValueError("second")), Work("a", first))
    taken(streams, 3)
    assert streams.failure is first


def test_silence_is_no_item(merged: Callable[..., MergedStreams[str]]) -> None:
    streams = merged(Work(5.0))
    assert (streams.wait(0.01), streams.take()) == (False, None)


def test_a_consumer_that_takes_nothing_slows_the_streams_down(
    merged: Callable[..., MergedStreams[str]],
) -> None:
    works = [Work(*["x"] * 100) for _ in range(2)]
    merged(*works, ahead=4)
    gevent.sleep(0.01)
    assert 8 <= sum(work.given for work in works) <= 10


def test_close_ends_every_stream_and_begins_none(merged: Callable[..., MergedStreams[str]]) -> None:
    waiting, full = Work(5.0), Work(*["x"] * 100)
    streams = merged(waiting, full)
    gevent.sleep(0.01)
    streams.close()
    streams.close()
    assert (waiting.closed, full.closed) == (True, True)
    unbegun = Work("x")
    merged(unbegun).close()
    gevent.sleep(0.01)
    assert not unbegun.begun


@pytest.mark.parametrize("reason", [None, ValueError("left")])
def test_cancel_wakes_what_waits_and_tells_why(
    merged: Callable[..., MergedStreams[str]], reason: Exception | None
) -> None:
    work = Work(5.0)
    streams = merged(work)
    gevent.spawn_later(0.01, partial(streams.cancel, reason))
    assert taken(streams, 1) == [(0, Ended(reason))]
    gevent.sleep(0)
    assert work.closed


def test_cancel_does_not_wait_where_the_queue_is_full(
    merged: Callable[..., MergedStreams[str]],
) -> None:
    work = Work(*["x"] * 100)
    streams = merged(work, ahead=2)
    gevent.sleep(0.01)
    streams.cancel(None)
    gevent.sleep(0.01)
    assert work.closed
    assert [streams.take() for _ in range(3)] == [(0, "x"), (0, "x"), None]


LIMITS = Timeouts(first_byte_s=0.2, idle_s=0.2, total_s=0.5)
PATIENT = Timeouts(first_byte_s=5, idle_s=5, total_s=5)


# A single stream.


def named(error: Exception) -> Exception:
    return UpstreamCut(detail=type(error).__name__)


@pytest.fixture
def feed_of() -> Iterator[Callable[..., WorkerStream[Any]]]:
    feeds: list[WorkerStream[Any]] = []

    def begin(
        work: Work, limits: Timeouts = PATIENT, call: Call | None = None
    ) -> WorkerStream[Any]:
        feeds.append(WorkerStream(work, call or Call(limits), failure=named))
        return feeds[-1]

    yield begin
    for feed in feeds:
        feed.close()


def test_items_come_in_their_order_and_then_nothing(
    feed_of: Callable[..., WorkerStream[Any]],
) -> None:
    feed = feed_of(Work(1, 2, 3))
    taken: list[Any] = []
    while items := feed.take():
        taken += items
    assert (taken, items, feed.take()) == ([1, 2, 3], [], [])


def test_a_failure_comes_behind_the_items_in_our_words(
    feed_of: Callable[..., WorkerStream[Any]],
) -> None:
    feed = feed_of(Work(1, KeyError("secret")))
    assert feed.take() == [1]
    for _ in range(2):
        with pytest.raises(UpstreamCut) as raised:
            feed.take()
    assert raised.value.detail == "KeyError"


def test_silence_is_none(feed_of: Callable[..., WorkerStream[Any]]) -> None:
    assert feed_of(Work(10.0)).take(0.01) is None


@pytest.mark.parametrize(
    ("work", "limits", "says"),
    [
        (Work(10.0), LIMITS, "did not begin to answer in 0.2 s"),
        (Work(1, 10.0), LIMITS, "was silent for 0.2 s"),
        (Work(10.0), Timeouts(first_byte_s=9, idle_s=9, total_s=0.2), "longer than 0.2 s in total"),
    ],
    ids=["first byte", "idle", "total"],
)
@pytest.mark.parametrize("wait_s", [None, 0.05], ids=["", "with heartbeats"])
def test_limits_end_the_wait(
    feed_of: Callable[..., WorkerStream[Any]],
    work: Work,
    limits: Timeouts,
    says: str,
    wait_s: float | None,
) -> None:
    feed = feed_of(work, limits)
    with pytest.raises(UpstreamTimeout, match=says):
        while True:
            assert feed.take(wait_s) != []


def test_a_client_that_leaves_ends_the_work(feed_of: Callable[..., WorkerStream[Any]]) -> None:
    work, call = Work(10.0), Call(PATIENT)
    feed = feed_of(work, call=call)
    leaving = gevent.spawn_later(0.05, call.leave)
    with pytest.raises(ClientGone):
        feed.take()
    leaving.join()
    gevent.sleep(0.01)
    assert work.closed


def test_a_client_that_has_left_begins_no_work(feed_of: Callable[..., WorkerStream[Any]]) -> None:
    call = Call(PATIENT)
    call.leave()
    work = Work(1)
    with pytest.raises(ClientGone):
        feed_of(work, call=call)
    gevent.sleep(0.01)
    assert work.given == 0


@pytest.mark.parametrize(
    "items", [(10.0,), range(10 * AHEAD)], ids=["that waits", "that is far ahead"]
)
def test_closing_ends_work(
    feed_of: Callable[..., WorkerStream[Any]], items: tuple[Step, ...]
) -> None:
    work = Work(*items)
    with closing(feed_of(work)):
        gevent.sleep(0.01)
        assert not work.closed
    gevent.sleep(0.01)
    assert work.closed


def test_work_is_not_far_ahead_of_who_takes(feed_of: Callable[..., WorkerStream[Any]]) -> None:
    work = Work(*range(10 * AHEAD))
    feed = feed_of(work)
    gevent.sleep(0.01)
    assert work.given <= AHEAD + 1
    taken = 0
    while items := feed.take():
        taken += len(items)
    assert taken == 10 * AHEAD
