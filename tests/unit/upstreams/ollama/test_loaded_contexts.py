"""Whether an answer outgrew its context is known from its counts, and the server is asked
as rarely as possible."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from ollama_proxy.errors import UpstreamConnect
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama import loaded_contexts
from ollama_proxy.upstreams.ollama.loaded_contexts import WAIT_S, LoadedContexts


class Server:
    """What `/api/ps` has, and how often it was asked."""

    def __init__(self, **contexts: int) -> None:
        self.contexts = {f"{name}:latest": context for name, context in contexts.items()}
        self.asked = 0
        self.fails = False
        self.takes_s = 0.0

    def ask(self, call: Call) -> list[dict[str, Any]]:
        self.asked += 1
        gevent.sleep(self.takes_s)
        if self.fails:
            raise UpstreamConnect
        return [
            {"name": name, "context_length": context} for name, context in self.contexts.items()
        ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds go by."""
    passed = 0.0
    monotonic = time.monotonic

    def go_on(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return monotonic() + passed

    monkeypatch.setattr(loaded_contexts, "time", Clock)
    return go_on


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
    tokens: int, requested: int | None, exceeded: bool
) -> None:
    assert LoadedContexts(Server(m=512).ask).is_exceeded("M", tokens, requested) is exceeded


def test_small_answers_never_ask() -> None:
    server = Server(m=512)
    assert not LoadedContexts(server.ask).is_exceeded("m", 256, 64)
    assert server.asked == 0


def test_answers_that_fit_ask_no_more_often_than_health_checks(
    clock: Callable[[float], None],
) -> None:
    server = Server(m=8192)
    contexts = LoadedContexts(server.ask)
    for _ in range(49):
        assert not contexts.is_exceeded("m", 5000, None)
        clock(0.1)
    assert server.asked == 1
    clock(0.1)
    assert not contexts.is_exceeded("m", 5000, None)
    assert server.asked == 2


def test_answer_that_does_not_fit_is_compared_with_a_newer_list(
    clock: Callable[[float], None],
) -> None:
    """The model may have been loaded meanwhile with more, or for this request with less."""
    server = Server(m=512)
    contexts = LoadedContexts(server.ask)
    assert contexts.is_exceeded("m", 600, None)
    server.contexts = {"m:latest": 8192}
    assert not contexts.is_exceeded("m", 600, 8192)
    server.contexts = {"m:latest": 1024}
    assert contexts.is_exceeded("m", 1100, 1024)
    server.contexts = {"m:latest": 512}
    clock(5)
    assert contexts.is_exceeded("m", 600, None)
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
    tokens: int, requested: int | None, exceeded: bool
) -> None:
    """Engines round it up to whole units of 256."""
    assert LoadedContexts(Server(other=1).ask).is_exceeded("m", tokens, requested) is exceeded


def test_server_that_fails_is_left_alone_for_a_while(clock: Callable[[float], None]) -> None:
    server = Server(m=512)
    server.fails = True
    contexts = LoadedContexts(server.ask)
    assert [contexts.is_exceeded("m", 600, None) for _ in range(5)] == [False] * 5
    assert server.asked == 1
    server.fails = False
    clock(10)
    assert contexts.is_exceeded("m", 600, None)


def test_answers_wait_for_one_list_and_not_for_long() -> None:
    server = Server(m=512)
    server.takes_s = 0.1
    contexts = LoadedContexts(server.ask)
    answers = [gevent.spawn(contexts.is_exceeded, "m", 600, None) for _ in range(5)]
    gevent.joinall(answers)
    assert [each.value for each in answers] == [True] * 5
    assert server.asked == 1
    slow = Server(m=512)
    slow.takes_s = 30
    began = time.monotonic()
    assert not LoadedContexts(slow.ask).is_exceeded("m", 600, None)
    assert time.monotonic() - began < WAIT_S + 0.4


def test_list_that_was_read_anyway_is_used() -> None:
    server = Server()
    contexts = LoadedContexts(server.ask)
    contexts.note([{"name": "m:latest", "context_length": 1024}])
    assert not contexts.is_exceeded("m", 1024, None)
    assert server.asked == 0
