"""Whether an answer outgrew its context is known from its counts, and the server is asked
as rarely as possible."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from ollama_proxy.errors import UpstreamConnect
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama.loaded_contexts import WAIT_S, LoadedContexts
from tests.rig.clock import ManualClock


class Server:
    """What `/api/ps` has, and how often it was asked."""

    def __init__(self, **contexts: int) -> None:
        self.contexts = {f"{name}:latest": context for name, context in contexts.items()}
        self.asked = 0
        self.fails = False
        self.takes_s = 0.0

    def ask(self, call: Call) -> list[dict[str, Any]]:
        self.asked += 1
        call.clock.sleep(self.takes_s)
        if self.fails:
            raise UpstreamConnect
        return [
            {"name": name, "context_length": context} for name, context in self.contexts.items()
        ]


@pytest.mark.parametrize(
    ("tokens", "requested", "exceeded"),
    [
        (512, None, False),
        (513, None, True),
        (513, 512, True),
        (513, 1024, True),
        (512, 256, False),
        (256, 64, False),
    ],
)
def test_answer_is_compared_with_what_is_loaded(
    clock: ManualClock, tokens: int, requested: int | None, exceeded: bool
) -> None:
    assert LoadedContexts(Server(m=512).ask).is_exceeded("M", tokens, requested, clock) is exceeded


def test_small_answers_never_ask(clock: ManualClock) -> None:
    server = Server(m=512)
    assert not LoadedContexts(server.ask).is_exceeded("m", 256, 64, clock)
    assert server.asked == 0


def test_answers_that_fit_ask_no_more_often_than_health_checks(
    clock: ManualClock,
) -> None:
    server = Server(m=8192)
    contexts = LoadedContexts(server.ask)
    for _ in range(49):
        assert not contexts.is_exceeded("m", 5000, None, clock)
        clock.advance(0.1)
    assert server.asked == 1
    clock.advance(0.1)
    assert not contexts.is_exceeded("m", 5000, None, clock)
    assert server.asked == 2


def test_answer_that_does_not_fit_is_compared_with_a_newer_list(
    clock: ManualClock,
) -> None:
    """The model may have been loaded meanwhile with more, or for this request with less."""
    server = Server(m=512)
    contexts = LoadedContexts(server.ask)
    assert contexts.is_exceeded("m", 600, None, clock)
    server.contexts = {"m:latest": 8192}
    assert not contexts.is_exceeded("m", 600, 8192, clock)
    server.contexts = {"m:latest": 1024}
    assert contexts.is_exceeded("m", 1100, 1024, clock)
    server.contexts = {"m:latest": 512}
    clock.advance(5)
    assert contexts.is_exceeded("m", 600, None, clock)
    assert server.asked == 4


@pytest.mark.parametrize(
    ("tokens", "requested", "exceeded"),
    [
        (5000, None, False),
        (5000, 4096, True),
        (300, 257, False),
        (513, 500, True),
        (512, 500, False),
    ],
)
def test_unloaded_model_is_known_by_what_its_request_asked_for(
    clock: ManualClock, tokens: int, requested: int | None, exceeded: bool
) -> None:
    """Engines round it up to whole units of 256."""
    assert (
        LoadedContexts(Server(other=1).ask).is_exceeded("m", tokens, requested, clock) is exceeded
    )


def test_server_that_fails_is_left_alone_for_a_while(clock: ManualClock) -> None:
    server = Server(m=512)
    server.fails = True
    contexts = LoadedContexts(server.ask)
    assert [contexts.is_exceeded("m", 600, None, clock) for _ in range(5)] == [False] * 5
    assert server.asked == 1
    server.fails = False
    clock.advance(10)
    assert contexts.is_exceeded("m", 600, None, clock)


def test_answers_wait_for_one_list_and_not_for_long(clock: ManualClock) -> None:
    server = Server(m=512)
    server.takes_s = WAIT_S - 0.1
    contexts = LoadedContexts(server.ask)
    answers = [gevent.spawn(contexts.is_exceeded, "m", 600, None, clock) for _ in range(5)]
    clock.advance(server.takes_s)
    assert [each.value for each in answers] == [True] * 5
    assert server.asked == 1
    slow = Server(m=512)
    slow.takes_s = 30
    answer = gevent.spawn(LoadedContexts(slow.ask).is_exceeded, "m", 600, None, clock)
    clock.advance(WAIT_S - 0.1)
    assert not answer.ready()
    clock.advance(0.1)
    assert answer.value is False


def test_list_that_was_read_anyway_is_used(clock: ManualClock) -> None:
    server = Server()
    contexts = LoadedContexts(server.ask)
    contexts.note([{"name": "m:latest", "context_length": 1024}], clock.monotonic())
    assert not contexts.is_exceeded("m", 1024, None, clock)
    assert server.asked == 0
