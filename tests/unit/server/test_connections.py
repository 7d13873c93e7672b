"""The connections of a worker: who makes room when it is full."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.server import connection, connections
from ollama_proxy.server.connection import Connection
from ollama_proxy.server.connections import Connections
from tests.rig.clock import ManualClock
from tests.rig.deadline import wait_until


class Pair:
    """A connection as the worker has it, and its client's end."""

    def __init__(self, opened: ExitStack, clock: Clock) -> None:
        self.socket, theirs = (opened.enter_context(each) for each in socket.socketpair())
        self.ours = Connection(self.socket, clock=clock)
        theirs.setblocking(False)
        self.theirs = theirs

    @property
    def is_closed(self) -> bool:
        """Whether the client sees its end."""
        try:
            return self.theirs.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has only just come, unless a test says so."""
    monkeypatch.setattr(connections, "JUST_COME_S", 0.0)


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    with ExitStack() as opened:
        yield lambda clock=SYSTEM_CLOCK: Pair(opened, clock)


def enter_and_ask(held: Connections, kept: Pair) -> None:
    """It comes, is answered once, and waits for its next request."""
    held.enter(kept.ours)
    held.begin(kept.ours)
    held.end(kept.ours)


def enter_three(held: Connections, pair: Callable[[], Pair]) -> tuple[Pair, Pair, Pair]:
    """One that has never asked, one that waits for its next request, one that is answered."""
    new, kept, busy = pair(), pair(), pair()
    held.enter(new.ours)
    enter_and_ask(held, kept)
    held.enter(busy.ours)
    held.begin(busy.ours)
    return new, kept, busy


def test_the_one_that_has_waited_longest_for_its_first_request_makes_room(
    pair: Callable[[], Pair],
) -> None:
    held = Connections(2, waiting_s=60)
    first, second, third = pair(), pair(), pair()
    assert [held.enter(each.ours) for each in (first, second, third)] == [True, True, True]
    assert [each.is_closed for each in (first, second, third)] == [True, False, False]
    assert len(held) == 2


def test_one_that_has_never_asked_goes_before_one_that_waits_for_its_next_request(
    pair: Callable[[], Pair],
) -> None:
    held = Connections(2, waiting_s=60)
    kept, new, third = pair(), pair(), pair()
    enter_and_ask(held, kept)
    held.enter(new.ours)
    assert held.enter(third.ours)
    assert [each.is_closed for each in (kept, new)] == [False, True]
    held.begin(third.ours)
    assert held.enter(new.ours)
    assert kept.is_closed


def test_one_that_has_only_just_come_may_be_about_to_ask(
    pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "JUST_COME_S", 60.0)
    held = Connections(2, waiting_s=60)
    kept, new, third, fourth = pair(), pair(), pair(), pair()
    enter_and_ask(held, kept)
    held.enter(new.ours)
    assert held.enter(third.ours)
    assert [each.is_closed for each in (kept, new)] == [True, False]
    assert held.enter(fourth.ours)
    assert [each.is_closed for each in (new, third)] == [True, False], "somebody has to go"


def test_one_whose_request_has_arrived_is_not_closed(pair: Callable[[], Pair]) -> None:
    held = Connections(2, waiting_s=60)
    asking, silent, third, fourth = pair(), pair(), pair(), pair()
    for each in (asking, silent):
        held.enter(each.ours)
    asking.theirs.send(b"GET / HTTP/1.1")
    assert held.enter(third.ours)
    assert [each.is_closed for each in (asking, silent)] == [False, True]
    third.theirs.send(b"GET / HTTP/1.1")
    assert not held.enter(fourth.ours)
    held.close_waiting(0)
    assert not asking.is_closed


def test_nobody_who_is_being_answered_makes_room(pair: Callable[[], Pair]) -> None:
    held = Connections(2, waiting_s=60)
    first, second, third = pair(), pair(), pair()
    for each in (first, second):
        held.enter(each.ours)
        held.begin(each.ours)
    assert not held.enter(third.ours)
    assert not any(each.is_closed for each in (first, second, third))
    held.leave(first.ours)
    assert held.enter(third.ours)


def test_who_has_made_room_is_not_there_any_more(pair: Callable[[], Pair]) -> None:
    held = Connections(1, waiting_s=60)
    first, second = pair(), pair()
    held.enter(first.ours)
    held.enter(second.ours)
    held.end(first.ours)
    held.leave(first.ours)
    assert len(held) == 1


def test_those_that_wait_are_closed_at_the_end_and_no_others(
    pair: Callable[[], Pair], clock: ManualClock
) -> None:
    held = Connections(9, waiting_s=60, clock=clock)
    new, kept, busy = enter_three(held, pair)
    clock.advance(59)
    held.close_waiting(60)
    assert not any(each.is_closed for each in (new, kept, busy))
    clock.advance(1)
    held.close_waiting(60)
    assert [each.is_closed for each in (new, kept, busy)] == [True, True, False]


def test_those_whose_head_is_overdue_are_closed(
    pair: Callable[[], Pair], clock: ManualClock
) -> None:
    held = Connections(9, waiting_s=60, clock=clock)
    new, kept, busy = enter_three(held, pair)
    new.theirs.send(b"GET / HTTP/1.1")
    held.close_overdue()
    assert not any(each.is_closed for each in (new, kept, busy))
    clock.advance(60)
    late = pair()
    held.enter(late.ours)
    held.close_overdue()
    assert [each.is_closed for each in (new, kept, busy, late)] == [True, True, False, False]


def test_one_with_a_request_in_advance_is_not_closed(pair: Callable[[], Pair]) -> None:
    held = Connections(9, waiting_s=60)
    one = pair()
    held.enter(one.ours)
    one.ours.unread(b"GET / HTTP/1.1")
    held.close_waiting(0)
    assert not one.is_closed


@pytest.mark.parametrize("is_watched", [False, True])
def test_one_that_takes_no_response_is_closed_unless_it_is_watched(
    pair: Callable[..., Pair], clock: ManualClock, is_watched: bool
) -> None:
    held, one = Connections(9, waiting_s=60, clock=clock), pair(clock)
    held.enter(one.ours)
    held.begin(one.ours)
    one.ours.is_watched = is_watched
    failed: list[OSError] = []

    def send() -> None:
        try:
            one.ours.send(b"x" * 10_000_000)
        except OSError as error:
            failed.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()

    def is_stalled() -> bool:
        clock.advance(connections.SEND_IDLE_S / 2)
        return one.ours.is_send_stalled(clock.now_s, connections.SEND_IDLE_S)

    wait_until(is_stalled)
    held.close_overdue()
    if is_watched:
        assert one.theirs.send(b"more") and sender.is_alive()
        one.ours.shut(socket.SHUT_RDWR)
    sender.join(5)
    assert failed


def test_who_has_had_the_last_response_makes_room_first(pair: Callable[[], Pair]) -> None:
    held = Connections(2, waiting_s=60)
    waiting, lingering, third = pair(), pair(), pair()
    held.enter(waiting.ours)
    held.enter(lingering.ours)
    lingering.theirs.send(b"x" * 100_000)
    thread = threading.Thread(target=held.linger, args=(lingering.ours,), daemon=True)
    thread.start()
    wait_until(lambda: lingering.is_closed, 5)
    assert len(held) == 2
    assert held.enter(third.ours)
    thread.join(connection.LINGER_S / 2)
    assert not thread.is_alive() and not waiting.is_closed
    assert len(held) == 2
