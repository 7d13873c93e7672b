"""Several answers at once: their order, their silence, how one that fails ends the others,
and what is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gevent
import gevent.event
import pytest

from ollama_proxy.errors import ClientGone, UpstreamCut, UpstreamRefused
from ollama_proxy.gateway.fanout import BATCHES_AHEAD, OPENING_S, FanOut, spread
from ollama_proxy.hub import (
    ChatRequest,
    Choice,
    Content,
    Done,
    Event,
    GenerateRequest,
    Message,
    collect,
)
from ollama_proxy.upstreams.call import Call
from tests.rig.deadline import wait_until
from tests.unit.upstreams.stock import new_call

END = Done("stop", 3, 1)

#: What a scripted answer does: give a batch, wait so many seconds, or fail.
Step = Sequence[Event] | float | Exception


class Told:
    """An answer by a script; knows how often it was closed."""

    def __init__(self, *steps: Step, opens_after_s: float = 0.0) -> None:
        self._steps = steps
        self._opens_after_s = opens_after_s
        self.opened = self.closed = self.given = 0
        self.call: Call | None = None

    def open(self, call: Call) -> Told:
        self.call = call
        gevent.sleep(self._opens_after_s)
        self.opened += 1
        return self

    def __iter__(self) -> Iterator[Sequence[Event]]:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, int | float):
                self._wait(step)
            else:
                self.given += 1
                yield step

    def _wait(self, seconds: float) -> None:
        """As a connection waits: until the client leaves."""
        assert self.call is not None
        woken = gevent.event.Event()
        self.call.attach(woken.set)
        woken.wait(seconds)
        self.call.check()

    def close(self) -> None:
        self.closed += 1


class Refused(Told):
    """An upstream that says no instead of opening."""

    def open(self, call: Call) -> Told:
        super().open(call)
        raise UpstreamRefused(503, "busy")


def asked_of(*answers: Told, heartbeat_s: float | None = None, of: Call | None = None) -> FanOut:
    return FanOut([answer.open for answer in answers], of or new_call(), heartbeat_s)


def text(word: str) -> tuple[Content]:
    return (Content(word),)


# --- What comes out -------------------------------------------------------------------------------


def test_every_batch_says_whose_it_is_and_each_answer_keeps_its_order() -> None:
    answers = [Told(text(f"{name}1"), 0.01, text(f"{name}2"), (END,)) for name in "abc"]
    with closing(asked_of(*answers)) as events:
        batches = list(events)
    for index, name in enumerate("abc"):
        assert [batch[1:] for batch in batches if batch[0] == Choice(index)] == [
            text(f"{name}1"),
            text(f"{name}2"),
            (END,),
        ]


def test_answers_are_asked_for_at_the_same_time() -> None:
    began = time.monotonic()
    with closing(asked_of(*(Told((END,), opens_after_s=1.0) for _ in range(16)))) as events:
        assert len(list(events)) == 16
    assert time.monotonic() - began < 10


def test_an_answer_does_not_wait_for_a_slower_one() -> None:
    slow, quick = Told(60.0, (END,), opens_after_s=0), Told(text("quick"), (END,))
    with closing(asked_of(slow, quick)) as events:
        began = time.monotonic()
        assert next(iter(events)) == (Choice(1), Content("quick"))
        assert time.monotonic() - began < 15


def test_single_answers_are_collected_by_their_index() -> None:
    answers = [Told(0.03, (Content("first"), END)), Told((Content("second"), END))]
    with closing(asked_of(*answers)) as events:
        collected = collect(event for batch in events for event in batch)
    assert [answer.content for answer in collected] == ["first", "second"]


def test_silence_of_all_is_an_empty_batch_and_that_of_one_is_not() -> None:
    talking = Told(*(step for _ in range(12) for step in (text("x"), 0.02)), (END,))
    silent = Told((), (), 0.6, (END,))
    with closing(asked_of(talking, silent, heartbeat_s=0.1)) as events:
        batches = list(events)
    assert batches.index(()) > batches.index((Choice(0), END))
    assert 1 <= batches.count(()) <= 6


def test_silence_before_the_first_event_is_an_empty_batch_too() -> None:
    with closing(asked_of(Told((END,), opens_after_s=0.3), heartbeat_s=0.05)) as events:
        assert next(iter(events)) == ()


def test_slow_client_slows_the_answers_down() -> None:
    endless = [Told(*(text("x") for _ in range(1000))) for _ in range(2)]
    with closing(asked_of(*endless)) as events:
        next(iter(events))
        gevent.sleep(0.05)
        assert sum(answer.given for answer in endless) <= 2 * BATCHES_AHEAD + 4


# --- What goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [0.0, OPENING_S / 2], ids=["at once", "a little later"])
def test_refusal_of_one_is_raised_before_the_first_event_of_another(late_s: float) -> None:
    answers = [Told(text("quick"), 5.0), Refused(opens_after_s=late_s), Told(5.0)]
    events = asked_of(*answers)
    with pytest.raises(UpstreamRefused, match="busy"):
        next(iter(events))
    assert [answer.closed for answer in answers] == [1, 0, 1]


def test_failure_in_the_middle_comes_after_what_came_before_it_and_closes_the_others() -> None:
    answers = [Told(text("a"), 5.0), Told(text("b"), 0.05, UpstreamCut()), Told(5.0)]
    batches: list[Sequence[Event]] = []
    with pytest.raises(UpstreamCut):
        batches.extend(asked_of(*answers))
    assert sorted(map(repr, batches)) == sorted(
        map(repr, [(Choice(0), *text("a")), (Choice(1), *text("b"))])
    )
    assert [answer.closed for answer in answers] == [1, 1, 1]


def test_fault_of_our_own_is_raised_and_not_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        list(asked_of(Told(5.0), Told(ZeroDivisionError())))


@pytest.mark.parametrize("after_s", [0.0, 0.05], ids=["before the heads", "between tokens"])
def test_client_that_leaves_ends_all(after_s: float) -> None:
    answers, one = [Told(text("x"), 60.0, opens_after_s=0.02) for _ in range(3)], new_call()
    events = iter(asked_of(*answers, of=one))
    gevent.spawn_later(after_s, one.leave)
    began = time.monotonic()
    with pytest.raises(ClientGone):
        list(events)
    assert time.monotonic() - began < 15
    assert [answer.closed for answer in answers] == [answer.opened for answer in answers]


@pytest.mark.parametrize("began", [False, True], ids=["not iterated", "iterated"])
def test_close_ends_everything_once(began: bool) -> None:
    answers = [Told(text("x"), 5.0), Told(5.0), Told(5.0, opens_after_s=5.0)]
    events = asked_of(*answers)
    if began:
        next(iter(events))
    wait_until(lambda: [answer.opened for answer in answers] == [1, 1, 0])
    events.close()
    events.close()
    assert [answer.closed for answer in answers] == [1, 1, 0]


def test_close_before_anything_has_begun_opens_nothing() -> None:
    answers = [Told((END,)), Told((END,))]
    asked_of(*answers).close()
    gevent.sleep(0.01)
    assert [answer.opened for answer in answers] == [0, 0]


def test_worker_that_is_stopped_leaves_nothing_open() -> None:
    """GreenletExit in the greenlet of the request."""
    answers = [Told(text("x"), 5.0), Told(5.0)]

    def request() -> None:
        with closing(asked_of(*answers)) as events:
            list(events)

    greenlet = gevent.spawn(request)
    wait_until(lambda: all(answer.opened for answer in answers))
    greenlet.kill()
    assert [answer.closed for answer in answers] == [1, 1]


# --- What is asked for ----------------------------------------------------------------------------


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=[Message("user", "Hi")], **fields)


def test_one_answer_is_the_request_itself() -> None:
    asked = chat()
    assert spread(asked) == [asked]
    assert spread(asked)[0] is asked


def test_each_answer_is_a_request_for_one() -> None:
    assert spread(chat(n=3)) == [chat()] * 3


def test_a_seed_does_not_make_all_answers_equal() -> None:
    options = [one.options for one in spread(chat(n=3, options={"seed": 7, "top_k": 1}))]
    assert options == [{"seed": seed, "top_k": 1} for seed in (7, 8, 9)]


@pytest.mark.parametrize("seed", [True, "7", None])
def test_a_seed_that_is_no_number_stays_as_it_is(seed: Any) -> None:
    assert [one.options["seed"] for one in spread(chat(n=2, options={"seed": seed}))] == [
        seed,
        seed,
    ]


def test_every_prompt_is_asked_as_often_as_answers_are_wanted() -> None:
    asked = GenerateRequest(model="m", prompt="a", prompts=["a", "b"], n=2, options={"seed": 1})
    assert [(one.prompt, one.options["seed"]) for one in spread(asked)] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]
    assert {(one.n, tuple(one.prompts)) for one in spread(asked)} == {(1, ())}
