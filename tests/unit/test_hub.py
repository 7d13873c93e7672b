"""The single answer that a stream amounts to."""

from __future__ import annotations

import dataclasses

import pytest

from ollama_proxy import hub
from ollama_proxy.hub import Answer, Content, Done, Event, Thinking, ToolCall, collect

F = ToolCall("call_1", "f", {"b": 1, "a": 2})
G = ToolCall("call_2", "g", {})
A, B = {"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Done("stop")], Answer("", "", [], [], Done("stop"))),
        ([Content("a"), Content("b"), Done("stop")], Answer("ab", "", [], [], Done("stop"))),
        ([Thinking("x"), Content("a"), Thinking("y"), Done("stop")], Answer("a", "xy", [], [], Done("stop"))),
        ([F, Content("a"), G, Done("stop")], Answer("a", "", [F, G], [], Done("stop"))),
        (
            [Thinking("x", [A]), Content("", [B]), Done("length", 3, 2)],
            Answer("", "x", [], [A, B], Done("length", 3, 2)),
        ),
    ],
)
def test_collect(events: list[Event], expected: Answer) -> None:
    assert collect(events) == expected


def test_collect_takes_any_iterable_once() -> None:
    assert collect(event for event in (Content("a"), Done("stop"))).content == "a"


def test_arguments_keep_the_order_of_the_model() -> None:
    assert list(collect([F, Done("stop")]).tool_calls[0].arguments) == ["b", "a"]


def test_answers_do_not_share_their_lists() -> None:
    collect([F, Done("stop")])
    assert collect([Done("stop")]).tool_calls == []


@pytest.mark.parametrize("event", [Content("a"), Thinking("a"), F, Done("stop")])
def test_events_cannot_be_changed_on_their_way(event: Event) -> None:
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        setattr(event, dataclasses.fields(event)[0].name, "other")


@pytest.mark.parametrize("kind", [hub.ChatRequest, hub.GenerateRequest, hub.EmbedRequest])
def test_absent_parameters_are_absent(kind: type) -> None:
    """Only what the client must give has no default; everything else starts as nothing, not as somebody's default."""
    harmless = (None, False, (), 1)
    for one in dataclasses.fields(kind):
        if one.default is not dataclasses.MISSING:
            assert one.default in harmless, one.name
        elif one.default_factory is not dataclasses.MISSING:
            assert one.default_factory() == {}, one.name
