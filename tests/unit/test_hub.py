"""The single answer that a stream amounts to."""

from __future__ import annotations

import dataclasses

import pytest

from ollama_proxy import hub
from ollama_proxy.hub import (
    Answer,
    Choice,
    Content,
    Done,
    Event,
    Thinking,
    ToolCall,
    Truncated,
    collect,
)
from tests.rig.tables import each_row

F = ToolCall("call_1", "f", {"b": 1, "a": 2})
G = ToolCall("call_2", "g", {})
A, B = {"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}


@each_row(
    ("events", "expected"),
    [
        ([Done("stop")], Answer("", "", [], [], Done("stop"))),
        ([Content("a"), Content("b"), Done("stop")], Answer("ab", "", [], [], Done("stop"))),
        (
            [Thinking("x"), Content("a"), Thinking("y"), Done("stop")],
            Answer("a", "xy", [], [], Done("stop")),
        ),
        ([F, Content("a"), G, Done("stop")], Answer("a", "", [F, G], [], Done("stop"))),
        (
            [Thinking("x", [A]), Content("", [B]), Done("length", 3, 2)],
            Answer("", "x", [], [B], Done("length", 3, 2)),
        ),
    ],
)
def test_collect(events: list[Event], expected: Answer) -> None:
    assert collect(events) == [expected]


@each_row(
    ("events", "contents"),
    [
        ([Choice(0), Content("a"), Done("stop")], ["a"]),
        (
            [Choice(0), Content("a"), Done("stop"), Choice(1), Content("b"), Done("stop")],
            ["a", "b"],
        ),
        (
            [Choice(1), Content("b"), Done("stop"), Choice(0), Content("a"), Done("stop")],
            ["a", "b"],
        ),
        (
            [
                Choice(0),
                Content("a"),
                Choice(1),
                Content("b"),
                Choice(0),
                Content("A"),
                Done("stop"),
            ]
            + [Choice(1), Content("B"), Done("stop")],
            ["aA", "bB"],
        ),
        ([Truncated(), Content("a"), Done("stop")], ["a"]),
    ],
)
def test_collect_sorts_by_choice(events: list[Event], contents: list[str]) -> None:
    assert [answer.content for answer in collect(events)] == contents


def test_choices_share_nothing() -> None:
    entwined: list[Event] = [
        Choice(0),
        F,
        Content("a", [A]),
        Choice(1),
        Thinking("x"),
        Choice(0),
        Done("stop", 3, 1),
    ]
    first, second = collect([*entwined, Choice(1), G, Done("length", 3, 2)])
    assert first == Answer("a", "", [F], [A], Done("stop", 3, 1))
    assert second == Answer("", "x", [G], [], Done("length", 3, 2))


def test_collect_takes_any_iterable_once() -> None:
    (answer,) = collect(event for event in (Content("a"), Done("stop")))
    assert answer.content == "a"


def test_arguments_keep_the_order_of_the_model() -> None:
    assert list(collect([F, Done("stop")])[0].tool_calls[0].arguments) == ["b", "a"]


def test_answers_do_not_share_their_lists() -> None:
    collect([F, Done("stop")])
    assert collect([Done("stop")])[0].tool_calls == []


@each_row("event", [Content("a"), Thinking("a"), F, Done("stop"), Choice(1)])
def test_events_cannot_be_changed_on_their_way(event: Event) -> None:
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        setattr(event, dataclasses.fields(event)[0].name, "other")


@pytest.mark.parametrize("kind", [hub.ChatRequest, hub.GenerateRequest, hub.EmbedRequest])
def test_absent_parameters_are_absent(kind: type) -> None:
    """Only what the client must give has no default; everything else starts as nothing, not
    as somebody's default."""
    harmless = (None, False, (), 1)
    for one in dataclasses.fields(kind):
        if one.default is not dataclasses.MISSING:
            assert one.default in harmless, one.name
        elif one.default_factory is not dataclasses.MISSING:
            assert one.default_factory() == {}, one.name
