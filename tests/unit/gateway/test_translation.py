"""An answer that takes time to open: heartbeats until it is open, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ollama_proxy.errors import UpstreamRefused
from ollama_proxy.gateway.translation import Completing, LateEvents
from ollama_proxy.hub import ChatRequest, Content, Done, Event

BATCHES: list[Sequence[Event]] = [(Content("a"),), (), (Done("stop"),)]


class Answer:
    """An answer by a script; knows how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[Sequence[Event]]:
        yield from BATCHES

    def close(self) -> None:
        self.closed += 1


class Door:
    """Opens after so many heartbeats, or fails then; knows whether it was left in the middle."""

    def __init__(self, heartbeats: int, failure: Exception | None = None) -> None:
        self.answer = Answer()
        self.left = False
        self._heartbeats = heartbeats
        self._failure = failure

    def completing(self) -> Completing:
        try:
            for _ in range(self._heartbeats):
                yield ()
        except GeneratorExit:
            self.left = True
            raise
        return ChatRequest(model="m", messages=[])

    def open(self, asked: ChatRequest) -> Answer:
        """The events of the request that is complete now."""
        if self._failure is not None:
            raise self._failure
        return self.answer

    @property
    def events(self) -> LateEvents:
        """The events behind this door."""
        return LateEvents(self.completing(), self.open)


@pytest.mark.parametrize("heartbeats", [0, 1, 3])
def test_heartbeats_come_until_it_is_open(heartbeats: int) -> None:
    assert list(Door(heartbeats).events) == [()] * heartbeats + BATCHES


@pytest.mark.parametrize("heartbeats", [0, 2])
def test_a_refusal_is_raised_in_place_of_the_first_event(heartbeats: int) -> None:
    batches = iter(Door(heartbeats, UpstreamRefused(503, "busy")).events)
    assert [next(batches) for _ in range(heartbeats)] == [()] * heartbeats
    with pytest.raises(UpstreamRefused, match="busy"):
        next(batches)


def test_what_is_never_iterated_opens_nothing() -> None:
    door = Door(3)
    completing = door.completing()
    LateEvents(completing, door.open).close()
    assert (list(completing), door.answer.closed) == ([], 0)


@pytest.mark.parametrize(("taken", "left", "closed"), [(1, True, 0), (2, True, 0), (3, False, 1), (4, False, 1)])
def test_close_ends_the_opening_or_the_answer(taken: int, left: bool, closed: int) -> None:
    door = Door(2)
    events = door.events
    batches = iter(events)
    for _ in range(taken):
        next(batches)
    events.close()
    assert (door.left, door.answer.closed) == (left, closed)
