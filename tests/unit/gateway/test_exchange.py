"""What an exchange holds is given back at its end, also what it gets only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import gevent
import gevent.event
import pytest

from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.fanout import FanOut
from ollama_proxy.hub import Event
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call


@pytest.fixture
def exchange() -> Exchange:
    return Exchange("id", "POST", "/", "client", NATIVE, Call(Timeouts()))


@pytest.fixture
def released() -> list[int]:
    return []


def giving(released: list[int], number: int) -> Callable[[], None]:
    """Notes that this one was given back."""
    return lambda: released.append(number)


def test_what_came_last_is_given_back_first_and_once(
    exchange: Exchange, released: list[int]
) -> None:
    for number in range(3):
        exchange.on_finish(giving(released, number))
    exchange.finish()
    exchange.finish()
    assert released == [2, 1, 0]


def test_one_that_fails_keeps_nobody_from_being_given_back(
    exchange: Exchange, released: list[int]
) -> None:
    exchange.on_finish(giving(released, 0))
    exchange.on_finish(lambda: [].pop())
    exchange.on_finish(giving(released, 2))
    with pytest.raises(IndexError):
        exchange.finish()
    assert released == [2, 0]


def test_what_comes_behind_the_end_is_given_back_at_once(
    exchange: Exchange, released: list[int]
) -> None:
    exchange.finish()
    exchange.on_finish(giving(released, 0))
    assert released == [0]


def test_observers_are_called_once_in_their_order_after_everything_is_released(
    exchange: Exchange,
) -> None:
    seen: list[str] = []
    exchange.finish_observers += [
        lambda one: seen.append(f"first: {one.state}"),
        lambda one: seen.append("second"),
    ]
    exchange.on_finish(lambda: setattr(exchange, "state", "released"))
    exchange.finish()
    exchange.finish()
    assert seen == ["first: released", "second"]


def test_observers_are_called_even_if_a_release_fails(exchange: Exchange) -> None:
    seen: list[str] = []
    exchange.finish_observers.append(lambda one: seen.append(one.id))
    exchange.on_finish(lambda: [].pop())
    with pytest.raises(IndexError):
        exchange.finish()
    assert seen == ["id"]


class Silent:
    """An answer that says nothing."""

    def __iter__(self) -> Iterator[Sequence[Event]]:
        gevent.sleep(60)
        yield ()

    def close(self) -> None: ...


def test_an_answer_that_opens_while_its_client_leaves_keeps_no_place(
    exchange: Exchange, released: list[int]
) -> None:
    """Of several answers one may begin in the same turn of the loop in which
    all of them are to end."""
    arrives = gevent.event.Event()

    def opened(call: Call) -> Silent:
        arrives.wait()
        exchange.on_finish(giving(released, 0))
        return Silent()

    answers = FanOut([opened] * 3, exchange.call, None)
    exchange.on_finish(answers.close)
    gevent.sleep(0)
    arrives.set()
    exchange.finish()
    assert released == [0, 0, 0]
