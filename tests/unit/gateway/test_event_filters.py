"""Events as a request wants them: what is left out, and the signs of life in its place."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from ollama_proxy.gateway.event_filters import filter_events
from ollama_proxy.hub import (
    Approximated,
    ChatRequest,
    Content,
    Done,
    Event,
    GenerateRequest,
    Thinking,
    ToolCall,
    Truncated,
)

END = Done("stop", 3, 1)
CALLS = [ToolCall("1", "a", {}), ToolCall("2", "b", {})]

Batches = Sequence[Sequence[Event]]


class Scripted:
    """Events as told, each batch after so many seconds."""

    def __init__(self, batches: Batches, delay_s: float = 0.0) -> None:
        self._batches = batches
        self._delay_s = delay_s
        self.closed = 0

    def __iter__(self) -> Iterator[Sequence[Event]]:
        for batch in self._batches:
            time.sleep(self._delay_s)
            yield batch

    def close(self) -> None:
        self.closed += 1


def chat(*, exclude_reasoning: bool | None = None, parallel_tool_calls: bool | None = None) -> ChatRequest:
    return ChatRequest(
        model="m", messages=[], exclude_reasoning=exclude_reasoning, parallel_tool_calls=parallel_tool_calls
    )


def shaped(asked: ChatRequest, batches: Batches, delay_s: float = 0.0, heartbeat_s: float | None = None) -> Batches:
    source = Scripted(batches, delay_s)
    return [list(batch) for batch in filter_events(source, asked, heartbeat_s)]


@pytest.mark.parametrize("asked", [chat(), chat(exclude_reasoning=False), chat(parallel_tool_calls=True)])
def test_what_nobody_shapes_is_the_upstreams_own(asked: ChatRequest) -> None:
    source = Scripted([])
    assert filter_events(source, asked, None) is source


def test_thinking_is_left_out_and_nothing_else() -> None:
    batches: Batches = [[Truncated(), Thinking("a")], [Thinking("b")], [Thinking("c"), Content("d")], [*CALLS, END]]
    assert shaped(chat(exclude_reasoning=True), batches) == [[Truncated()], [Content("d")], [*CALLS, END]]


def test_thinking_of_a_completion_is_left_out_too() -> None:
    asked = GenerateRequest(model="m", prompt="p", exclude_reasoning=True)
    source = Scripted([[Thinking("a"), Content("b"), END]])
    assert [list(batch) for batch in filter_events(source, asked, None)] == [[Content("b"), END]]


@pytest.mark.parametrize("batches", [[CALLS, [END]], [CALLS[:1], CALLS[1:], [END]]])
def test_only_the_first_call_is_left(batches: Batches) -> None:
    assert shaped(chat(parallel_tool_calls=False), batches) == [CALLS[:1], [END]]


def test_silence_of_the_upstream_passes() -> None:
    assert shaped(chat(exclude_reasoning=True), [[], [Content("a")], [], [END]]) == [[], [Content("a")], [], [END]]


def test_long_thinking_that_is_left_out_has_signs_of_life() -> None:
    batches: Batches = [*[[Thinking("a")]] * 10, [Content("b"), END]]
    seen = shaped(chat(exclude_reasoning=True), batches, delay_s=0.02, heartbeat_s=0.05)
    assert seen[-1] == [Content("b"), END]
    assert 2 <= seen.count([]) <= 5


def test_single_answer_needs_no_signs_of_life() -> None:
    assert shaped(chat(exclude_reasoning=True), [[Thinking("a")]] * 3 + [[END]], delay_s=0.01) == [[END]]


def test_closing_closes_the_source() -> None:
    source = Scripted([])
    filter_events(source, chat(exclude_reasoning=True), None).close()
    assert source.closed == 1


@pytest.mark.parametrize(
    ("events", "is_reported"),
    [
        ([Content('{"a":'), Content(" 1}\n")], False),
        ([Content("3")], False),
        ([Thinking("Hm"), Content("Sure: {}")], True),
        ([Content('{"a":')], True),
        ([], True),
        ([Content("I call it."), CALLS[0]], False),
    ],
)
def test_answer_that_has_to_be_json_and_is_not_is_reported(events: list[Event], is_reported: bool) -> None:
    report: list[Event] = [Approximated("response_format")] if is_reported else []
    asked = ChatRequest(model="m", messages=[], format="json")
    assert shaped(asked, [[event] for event in events] + [[END]]) == [*([event] for event in events), [*report, END]]
    assert shaped(asked, [[*events, END]]) == [[*report, *events, END]]
    assert shaped(asked, [[*events, Done("length")]]) == [[*events, Done("length")]]
