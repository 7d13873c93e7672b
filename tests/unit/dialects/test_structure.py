"""The structure of a JSON body is bounded before it is parsed; what stands in its
texts is no structure."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ollama_proxy.dialects import structure
from ollama_proxy.dialects.body import parse_object
from ollama_proxy.dialects.structure import (
    MAX_MESSAGES,
    MAX_NODES,
    MAX_PARTS,
    MAX_VALUES,
    SLICE_BYTES,
)
from ollama_proxy.errors import BadRequest, BodyTooLarge
from tests.rig.tables import each_row

MIB = 1 << 20
USER = {"role": "user", "content": "hello"}


def listed(item: bytes, number: int, field: bytes = b"messages") -> bytes:
    """A body with one list of many items."""
    return b'{"model":"m","%b":[%b]}' % (field, b",".join([item] * number))


TOO_MUCH = {
    "16 MiB of messages": listed(b'{"role":"user"}', MIB),
    "empty objects": listed(b"{}", MAX_NODES + 1),
    "empty lists": listed(b"[]", MAX_NODES + 1),
    "lists in lists": listed(b"[[[[]]]]", MAX_NODES // 4 + 1),
    "fields": b'{"model":"m","x":{%b}}'
    % b",".join(b'"k%d":1' % number for number in range(MAX_NODES + 1)),
    "fields at the top": b'{"model":"m",%b}'
    % b",".join(b'"k%d":1' % number for number in range(MAX_NODES + 1)),
    "objects with a field": listed(b'{"a":{}}', MAX_NODES // 3 + 1),
    "tools": listed(b'{"type":"function","function":{"name":"f"}}', MAX_NODES // 5 + 1, b"tools"),
    "numbers": listed(b"1", MAX_VALUES + 2, b"input"),
    "stop texts": listed(b'""', MAX_VALUES + 2, b"stop"),
    "spaces between": listed(b'{ "role" :\n "user" } ', MAX_NODES),
    "escapes in texts": listed(rb'{"a":"\"\\","\\\"":1}', MAX_NODES),
    "cut in the middle": listed(b'{"role":"user"}', MIB)[: 8 * MIB],
    "after a long text": b'{"model":"m","x":"%b","messages":[%b]}'
    % (b"," * MIB, b",".join([b"{}"] * (MAX_NODES + 1))),
}


@pytest.mark.parametrize("body", TOO_MUCH.values(), ids=TOO_MUCH)
@pytest.mark.parametrize("lenient", [False, True])
def test_too_much_structure_is_refused_before_it_is_parsed(
    body: bytes, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(data: bytes) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(orjson, "loads", parse)
    with pytest.raises(
        BodyTooLarge, match=f"more than ({MAX_NODES}|{MAX_VALUES}) (objects|values)"
    ) as caught:
        parse_object(body, lenient_tail=lenient)
    assert caught.value.status == 413


def call(number: int) -> dict[str, Any]:
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a":[1,{"b":2}]}'},
    }


def schema(depth: int) -> dict[str, Any]:
    inner = schema(depth - 1) if depth else {"type": "string", "enum": ["a", "b", "c"]}
    return {
        "type": "object",
        "properties": {"first": inner, "second": inner},
        "required": ["first"],
    }


TALK = [
    message
    for number in range(2500)
    for message in (
        {"role": "assistant", "content": None, "tool_calls": [call(number)]},
        {
            "role": "tool",
            "tool_call_id": f"call_{number}",
            "content": [{"type": "text", "text": "[1,2,{}]" * 50}],
        },
    )
]
TOOLS = [
    {"type": "function", "function": {"name": f"f{number}", "parameters": schema(3)}}
    for number in range(200)
]
CODE = 'if (a[0] == "x") { b = [1, 2, {"c": \\"d\\"}]; }\n'

ENOUGH: dict[str, dict[str, Any]] = {
    "5,000 messages with calls": {"messages": TALK},
    "200 tools with schemas": {"messages": [USER], "tools": TOOLS},
    "both": {"messages": TALK, "tools": TOOLS},
    "1,024 texts": {"input": ["Some text, with commas, and [brackets]. " * 50] * 1024},
    "300,000 tokens": {"input": [list(range(1000, 1300))] * 1000},
    "8 MiB of code": {"messages": [{"role": "user", "content": CODE * (8 * MIB // len(CODE))}]},
    "a table with a million commas": {
        "messages": [{"role": "user", "content": "1,2,3,4\n" * (MIB // 3)}]
    },
    "backslashes": {"messages": [{"role": "user", "content": '\\"{[,:\\\\' * MIB}]},
    "48 MiB of an image": {"messages": [{**USER, "images": ["QUJD" * (12 * MIB)]}]},
}


@each_row("fields", ENOUGH.values())
def test_what_requests_really_hold_is_taken(fields: dict[str, Any]) -> None:
    document = {"model": "m", **fields}
    assert parse_object(orjson.dumps(document)) == document


@each_row("shift", range(6))
def test_an_escape_sequence_is_never_cut_in_two(shift: int) -> None:
    """Where a slice ends within one, the quote behind it would begin a text, and the text be
    counted as structure."""
    text = "a" * (SLICE_BYTES - 40 + shift) + '\\"' * 20 + "{[,:" * MAX_VALUES
    document = {"model": "m", "x": text, "y": ["{,"] * 9}
    assert parse_object(orjson.dumps(document)) == document


def test_the_limit_itself_is_allowed() -> None:
    # The body, its list, and the fields of the body.
    assert structure.check_structure(listed(b"{}", MAX_NODES - 4)) > 0
    with pytest.raises(BodyTooLarge):
        structure.check_structure(listed(b"{}", MAX_NODES - 3))


# After parsing.

PARTS = {"type": "text", "text": ""}
MANY: dict[str, dict[str, Any]] = {
    "messages": {"messages": [USER] * (MAX_MESSAGES + 1)},
    "empty messages": {"messages": [{}] * (MAX_MESSAGES + 1)},
    "items": {"input": [{"type": "reasoning"}] * (MAX_MESSAGES + 1)},
    "images": {"messages": [{"images": ["a"] * (MAX_PARTS + 1)}]},
    "parts of several": {
        "messages": [{"content": [1] * (MAX_PARTS // 2), "tool_calls": [1] * (MAX_PARTS // 2 + 1)}]
    },
}


@each_row("fields", MANY.values())
def test_more_messages_or_parts_than_any_conversation_has_are_refused(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(
        BodyTooLarge, match=f"at most ({MAX_MESSAGES} messages|{MAX_PARTS} content parts)"
    ):
        parse_object(orjson.dumps({"model": "m", **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [USER] * MAX_MESSAGES},
        {"messages": [{"role": "user", "content": [PARTS] * 10_000}]},
        {"input": ["a"] * (MAX_PARTS + 1)},
        {"input": [1] * (MAX_PARTS + 1)},
    ],
    ids=["messages", "parts", "texts", "tokens"],
)
def test_as_many_as_the_limit_are_taken(fields: dict[str, Any]) -> None:
    assert parse_object(orjson.dumps({"model": "m", **fields}))


@pytest.mark.parametrize("levels", [1_025, 50_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_what_is_nested_too_deep_is_refused(levels: int, brackets: tuple[bytes, bytes]) -> None:
    before, after = brackets
    body = b'{"model":"m","x":%b1%b}' % (before * levels, after * levels)
    with pytest.raises((BadRequest, BodyTooLarge)):
        parse_object(body)


# Arguments of calls, which are JSON in a string.


def with_arguments(arguments: str, number: int = 1) -> dict[str, dict[str, Any]]:
    """Calls with these arguments, in each form that an API has for them."""
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "1", "type": "function", "function": function}]
    return {
        "tool_calls": {"messages": [{"role": "assistant", "tool_calls": calls}] * number},
        "many in one message": {"messages": [{"role": "assistant", "tool_calls": calls * number}]},
        "function_call": {"messages": [{"role": "assistant", "function_call": function}] * number},
        "items": {"input": [{"type": "function_call", "call_id": "1", **function}] * number},
    }


NODES, VALUES = orjson.dumps([{}] * 3000).decode(), orjson.dumps([1] * 20_000).decode()
ONE_LARGE = f'{{"a":[{",".join(["{}"] * (MAX_NODES + 1))}]}}'


@each_row("form", with_arguments(""))
@each_row(("arguments", "number"), [(NODES, 40), (VALUES, 30), (ONE_LARGE, 1)])
def test_structure_in_the_arguments_of_calls_has_the_same_limits(
    form: str, arguments: str, number: int
) -> None:
    body = orjson.dumps({"model": "m", **with_arguments(arguments, number)[form]})
    with pytest.raises(
        BodyTooLarge, match=f"at most ({MAX_NODES}|{MAX_VALUES}) .* in tool call arguments"
    ):
        parse_object(body)


@pytest.mark.parametrize("form", with_arguments(""))
def test_code_in_the_arguments_of_calls_is_a_text(form: str) -> None:
    code = orjson.dumps(
        {"path": "x.c", "content": 'if (a["b"]) { f(1, 2, {3: [4]}); }\n' * 3000}
    ).decode()
    assert parse_object(orjson.dumps({"model": "m", **with_arguments(code, 20)[form]}))
