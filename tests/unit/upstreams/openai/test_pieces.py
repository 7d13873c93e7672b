"""Calls of tools put together from the pieces in which providers stream them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Done, collect
from ollama_proxy.upstreams.openai.pieces import InlineThinking, ToolCallParts
from tests.rig.nesting import nested
from tests.rig.tables import each_row

Piece = dict[str, Any]


def piece(
    index: int | None = 0, call_id: str | None = None, name: Any = None, arguments: Any = None
) -> Piece:
    """One item of `tool_calls`; what is None is missing."""
    function = {
        key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None
    }
    made = {"index": index, "id": call_id, "function": function}
    return {key: value for key, value in made.items() if value is not None}


def taken(pieces: list[Piece], *, limited: bool = False) -> list[tuple[str, str, Any]]:
    parts = ToolCallParts()
    for each in pieces:
        parts.add(each)
    return [(call.id, call.name, call.arguments) for call in parts.take(limited=limited)]


ONE = [("c1", "f", {"a": 1})]
TWO = [("c1", "f", {"a": 1}), ("c2", "g", {})]

ROWS: dict[str, tuple[list[Piece], list[tuple[str, str, Any]]]] = {
    "by index": (
        [
            piece(0, "c1", "f", ""),
            piece(1, "c2", "g", ""),
            piece(0, arguments='{"a":'),
            piece(0, arguments="1}"),
        ],
        TWO,
    ),
    "no index, the same id": (
        [
            piece(None, "c1", "f", '{"a":'),
            piece(None, "c1", arguments="1}"),
            piece(None, "c2", "g"),
        ],
        TWO,
    ),
    "no index, a new id": ([piece(None, "c1", "f", '{"a":1}'), piece(None, "c2", "g", "{}")], TWO),
    "no index and no id": ([piece(None, "c1", "f", '{"a":'), piece(None, arguments="1}")], ONE),
    "the id empty later": ([piece(0, "c1", "f", '{"a":'), piece(0, "", arguments="1}")], ONE),
    "the id null later": (
        [piece(0, "c1", "f", '{"a":'), piece(0, arguments="1}") | {"id": None}],
        ONE,
    ),
    "the id only later": (
        [piece(0, name="f", arguments='{"a":'), piece(0, "c1", arguments="1}")],
        ONE,
    ),
    "another id in every piece": (
        [piece(0, "c1", "f", '{"a":'), piece(0, "c9", arguments="1}")],
        ONE,
    ),
    "the name again": ([piece(0, "c1", "f", '{"a":'), piece(0, "c1", "f", "1}")], ONE),
    "the name again, without index and id": (
        [piece(None, "c1", "f", '{"a":'), piece(None, name="f", arguments="1}")],
        ONE,
    ),
    "the name null": (
        [piece(0, "c1", "f", '{"a":'), {"index": 0, "function": {"name": None, "arguments": "1}"}}],
        ONE,
    ),
    "the name empty": ([piece(0, "c1", "f", '{"a":'), piece(0, name="", arguments="1}")], ONE),
    "the name only later": (
        [piece(0, "c1", arguments='{"a":'), piece(0, name="f", arguments="1}")],
        ONE,
    ),
    "an empty function": (
        [piece(0, "c1", "f", '{"a":1}'), {"index": 0, "function": {}}, {"index": 0}],
        ONE,
    ),
    "a function that is null": (
        [piece(0, "c1", "f", '{"a":1}'), {"index": 0, "function": None}],
        ONE,
    ),
    "another index later, by the id": (
        [piece(0, "c1", "f", '{"a":'), piece(7, "c1", arguments="1}")],
        ONE,
    ),
    "another index later, by the last call": (
        [piece(0, "c1", "f", '{"a":'), piece(7, arguments="1}")],
        ONE,
    ),
    "one index for two ids": ([piece(0, "c1", "f", '{"a":1}'), piece(0, "c2", "g", "{}")], TWO),
    "one index for two ids, in pieces": (
        [
            piece(0, "c1", "f", '{"a":'),
            piece(0, arguments="1}"),
            piece(0, "c2", "g"),
            piece(0, arguments="{}"),
        ],
        TWO,
    ),
    "arguments as an object": ([piece(0, "c1", "f", {"a": 1})], ONE),
    "arguments as an object, then nothing": (
        [piece(0, "c1", "f", {"a": 1}), piece(0, arguments="")],
        ONE,
    ),
    "arguments that grow": (
        [
            piece(0, "c1", "f", '{"a":1}'),
            piece(0, arguments='{"a":1}'),
            piece(0, arguments='{"a":1}  '),
        ],
        ONE,
    ),
    "arguments that only look as if they grew": (
        [piece(0, "c1", "f", '{"a":'), piece(0, arguments='{"a":'), piece(0, arguments="1}}")],
        [("c1", "f", {"a": {"a": 1}})],
    ),
    "no arguments": ([piece(0, "c1", "f")], [("c1", "f", {})]),
    "blank arguments": ([piece(0, "c1", "f", " \n")], [("c1", "f", {})]),
    "null as arguments": ([piece(0, "c1", "f", "null")], [("c1", "f", {})]),
    "a list as arguments": ([piece(0, "c1", "f", "[1,2]")], [("c1", "f", {"value": [1, 2]})]),
    "a text as arguments": ([piece(0, "c1", "f", '"x"')], [("c1", "f", {"value": "x"})]),
    "order of keys": ([piece(0, "c1", "f", '{"b":1,"a":2}')], [("c1", "f", {"b": 1, "a": 2})]),
    "an index that is no number": ([piece(None, "c1", "f", '{"a":1}') | {"index": "0"}], ONE),
}


@each_row(("pieces", "expected"), ROWS.values())
def test_pieces_become_calls(pieces: list[Piece], expected: list[tuple[str, str, Any]]) -> None:
    calls = taken(pieces)
    assert calls == expected
    assert [list(arguments) for _, _, arguments in calls] == [
        list(arguments) for _, _, arguments in expected
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(None, name="f", arguments="{}"), piece(None, name="f", arguments="{}")],
        [piece(None, name="f"), piece(None, name="g")],
        [piece(0, "same", "f", "{}"), piece(1, "", "g", "{}"), piece(2, "", "g", "{}")],
    ],
    ids=["whole calls without index and id", "other names without index and id", "no ids"],
)
def test_calls_without_ids_get_their_own(pieces: list[Piece]) -> None:
    calls = taken(pieces)
    assert len({call_id for call_id, _, _ in calls}) == len(pieces)
    assert all(call_id for call_id, _, _ in calls)


def test_an_id_is_never_given_twice() -> None:
    parts = ToolCallParts()
    ids = []
    for _ in range(2):
        parts.add(piece(0, "c1", "f", "{}"))
        ids += [call.id for call in parts.take()]
    assert ids[0] == "c1" and ids[1] not in ("", "c1")


@pytest.mark.parametrize(
    "bad",
    [
        piece(0, "c1", "f", '{"a":'),
        piece(0, "c1", "f", "{}{"),
        piece(0, "c1", "", "{}"),
        piece(0, "c1", "f", nested(260)),
    ],
    ids=["cut", "more than one", "without a name", "too deep"],
)
def test_a_call_that_can_not_be_read_is_no_call(bad: Piece) -> None:
    with pytest.raises(UpstreamError, match="an invalid tool call"):
        taken([bad])


def test_a_call_that_the_limit_has_cut_is_left_out() -> None:
    assert (
        taken([piece(0, "c1", "f", '{"a":1}'), piece(1, "c2", "g", '{"b":')], limited=True) == ONE
    )


def test_pieces_are_taken_once() -> None:
    parts = ToolCallParts()
    parts.add(piece(0, "c1", "f"))
    assert len(parts.take()) == 1
    assert parts.take() == []


def test_time_grows_with_the_number_of_calls_and_not_with_its_square() -> None:
    def seconds(number: int) -> float:
        parts = ToolCallParts()
        began = time.process_time()
        for index in range(number):
            parts.add(piece(index, f"c{index}", "f", "{}"))
        return time.process_time() - began

    few = min(seconds(2_000) for _ in range(3))
    assert min(seconds(16_000) for _ in range(3)) < 30 * few


TEXTS = {
    "plain": ("Hello", "", "Hello"),
    "thinking first": ("<think>\nhm, <b>\n</think>\n\nHello", "hm, <b>\n", "Hello"),
    "blanks before it": ("\n <think>hm</think>Hello", "hm", "Hello"),
    "a tag later is text": ("Say <think>no</think>", "", "Say <think>no</think>"),
    "a tag behind the thinking is text": (
        "<think>a</think>b<think>c</think>",
        "a",
        "b<think>c</think>",
    ),
    "no thoughts": ("<think></think>\n\nHello", "", "Hello"),
    "never closed": ("<think>hm </thin", "hm </thin", ""),
    "something like a tag": ("<thinker>Hello", "", "<thinker>Hello"),
    "only the beginning of a tag": ("<thi", "", "<thi"),
    "nothing else": ("<think>hm</think>", "hm", ""),
    "other languages": ("<think>想</think>世界🎉", "想", "世界🎉"),
}


@each_row(("text", "thinking", "content"), TEXTS.values())
def test_text_and_thinking_are_told_apart_wherever_the_text_is_cut(
    text: str, thinking: str, content: str
) -> None:
    for parts in [[text], *([text[:at], text[at:]] for at in range(len(text))), [*text]]:
        reader = InlineThinking()
        events = [event for part in parts for event in reader.events(part)]
        [answer] = collect([*events, *reader.end(), Done("stop")])
        assert (answer.thinking, answer.content) == (thinking, content), parts


def test_text_is_not_held_back_once_it_is_certain() -> None:
    reader = InlineThinking()
    assert reader.events("<think>a") != []
    assert reader.events("b</t") != []
    assert [type(event).__name__ for event in reader.events("hink>c")] == ["Content"]
