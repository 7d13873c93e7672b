"""What the items of `input` become on the Responses face: one turn is one message,
and a bad part is named."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ollama_proxy.dialects.responses.output_items import seal
from tests.golden.face import forwarded
from tests.golden.fates import Ask
from tests.golden.responses import asking
from tests.golden.responses.asking import messages
from tests.golden.responses.reading import Document
from tests.rig import native_chat
from tests.rig.fault_upstream import FaultUpstream, Json

TOOL: Document = {"type": "function", "name": "f", "parameters": {"type": "object"}}


ask = asking.ask


def user(*parts: Any) -> list[Document]:
    return [{"role": "user", "content": list(parts)}]


def text(value: str) -> Document:
    return {"type": "input_text", "text": value}


def image(url: Any, **fields: Any) -> Document:
    return {"type": "input_image", "image_url": url, "detail": "auto", **fields}


def file(kind: str, content: bytes, **fields: Any) -> Document:
    return {
        "type": "input_file",
        "file_data": f"data:{kind};base64,{base64.b64encode(content).decode()}",
        **fields,
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", {"content": "a"}),
        (None, {"content": ""}),
        ([], {"content": ""}),
        ([text("a"), text("b")], {"content": "a\nb"}),
        ([{"type": "output_text", "text": "a", "annotations": []}], {"content": "a"}),
        ([{"type": "refusal", "refusal": "no"}], {"content": "no"}),
        ([image("data:image/png;base64,AAAA")], {"content": "", "images": ["AAAA"]}),
        ([image("data:;base64,AAAA", file_id=None)], {"content": "", "images": ["AAAA"]}),
        (
            [text("a"), image("data:image/webp;base64,AAAA"), text("b")],
            {"content": "a\nb", "images": ["AAAA"]},
        ),
        ([file("text/plain", "é".encode())], {"content": "é"}),
        (
            [text("a"), file("text/csv;charset=utf-8", b"x,y", filename="t.csv")],
            {"content": "a\nt.csv\nx,y"},
        ),
        ([file("application/json", b"{}")], {"content": "{}"}),
        ([file("text/plain", b"")], {"content": ""}),
    ],
)
def test_parts_stay_one_message(content: Any, expected: Document, ask: Ask) -> None:
    """G17"""
    assert messages(ask(input=[{"role": "user", "content": content}])) == [
        {"role": "user"} | expected
    ]


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (image("ftp://example.org/cat.png"), "image_url"),
        (image("data:image/png,notbase64"), "image_url"),
        (image(None), "image_url"),
        (image(5), "image_url"),
        (image(None, file_id="file_1"), "file_id"),
        ({"type": "input_file", "file_id": "file_1"}, "file_id"),
        ({"type": "input_file", "file_url": "https://example.org/a.txt"}, "file_url"),
        ({"type": "input_file"}, "file_data"),
        (file("application/zip", b"PK"), "file_data"),
        (file("text/plain", b"\xff"), "file_data"),
        ({"type": "input_file", "file_data": "data:text/plain;base64,!"}, "file_data"),
        ({"type": "input_text"}, "text"),
        ({"type": "refusal"}, "refusal"),
        ({"type": "input_audio", "data": "AAAA"}, "type"),
        ({"text": "no type"}, "type"),
        ("text", "type"),
    ],
)
def test_part_that_cannot_be_used_is_named(part: Any, where: str, ask: Ask) -> None:
    asked = ask(input=[{"role": "user", "content": "x"}, *user(text("a"), part)])
    error = asked.answer.json()["error"]
    assert (asked.answer.status, asked.sent) == (400, {})
    assert error["param"] == f"input[1].content[1].{where}"
    assert error["message"].startswith(error["param"])


def test_image_of_a_private_address_is_refused_by_name(ask: Ask, upstream: FaultUpstream) -> None:
    asked = ask(input=user(image(f"{upstream.url}/cat.png")))
    assert asked.answer.status == 400
    assert "input[0].content[0].image_url" in asked.answer.json()["error"]["message"]
    assert not forwarded(upstream)


@pytest.mark.parametrize(
    ("item", "role"),
    [
        ({"role": "system", "content": "x"}, "system"),
        ({"role": "developer", "content": "x"}, "system"),
        ({"role": "user", "content": "x"}, "user"),
        ({"role": "assistant", "content": "x"}, "assistant"),
        ({"type": "message", "role": "developer", "content": [text("x")]}, "system"),
        (
            {"type": "message", "role": "assistant", "phase": "commentary", "content": "x"},
            "assistant",
        ),
    ],
)
def test_roles(item: Document, role: str, ask: Ask) -> None:
    assert messages(ask(input=[item])) == [{"role": role, "content": "x"}]


@pytest.mark.parametrize(
    ("item", "where"),
    [
        ({"role": "wizard", "content": "x"}, ".role"),
        ({"role": "tool", "content": "x"}, ".role"),
        ({"role": None, "content": "x"}, ".role"),
        ({"role": "user", "content": 5}, ".content"),
        ({"content": "x"}, ""),
        (5, ""),
        ("text", ""),
        (None, ""),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, ".name"),
        ({"type": "function_call", "call_id": 5, "name": "f", "arguments": "{}"}, ".call_id"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}, ".arguments"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]"}, ".arguments"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": 5}, ".arguments"),
        ({"type": "function_call_output", "call_id": "c", "output": 5}, ".output"),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "x"}]},
            ".output[0].type",
        ),
        (
            {"type": "compaction", "encrypted_content": "gAAAAABfaKeCiPhErTeXt"},
            ".encrypted_content",
        ),
        ({"type": "compaction"}, ".encrypted_content"),
        ({"type": "reasoning", "summary": "x"}, ".summary"),
        ({"type": "reasoning", "summary": ["x"]}, ".summary[0].type"),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": 5}]},
            ".summary[0].text",
        ),
        ({"type": "reasoning", "summary": [], "encrypted_content": 5}, ".encrypted_content"),
    ],
)
def test_item_that_cannot_be_used_is_named(item: Any, where: str, ask: Ask) -> None:
    asked = ask(input=[{"role": "user", "content": "x"}, item])
    error = asked.answer.json()["error"]
    assert (asked.answer.status, error["param"], asked.sent) == (400, f"input[1]{where}", {})


@pytest.mark.parametrize(
    "kind",
    """item_reference computer_call computer_call_output mcp_call mcp_list_tools mcp_approval_request
    file_search_call image_generation_call code_interpreter_call local_shell_call
    compaction_trigger""".split(),
)
def test_items_of_tools_that_are_not_run_here_are_refused(kind: str, ask: Ask) -> None:
    error = ask(input=[{"type": kind, "id": "x"}, {"role": "user", "content": "x"}]).answer.json()[
        "error"
    ]
    assert error["message"] == f'input[0]: unknown input item type: "{kind}"'


def call(call_id: str = "c1", name: str = "f", arguments: Any = "{}") -> Document:
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def result(call_id: str = "c1", output: Any = "r") -> Document:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def thought(value: str) -> Document:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal(value)}


def said(content: str = "", *calls: tuple[str, str], thinking: str = "") -> Document:
    """A message of the assistant as Ollama gets it."""
    message: Document = {"role": "assistant", "content": content}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = [
            {"id": call_id, "function": {"index": index, "name": name, "arguments": {}}}
            for index, (call_id, name) in enumerate(calls)
        ]
    return message


ASSISTANT = {"role": "assistant", "content": "One moment."}
RESULT = {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([call(), result()], [said("", ("c1", "f")), RESULT]),
        ([ASSISTANT, call(), result()], [said("One moment.", ("c1", "f")), RESULT]),
        ([call(), call("c2", "g"), result()], [said("", ("c1", "f"), ("c2", "g")), RESULT]),
        ([call(), ASSISTANT, result()], [said("One moment.", ("c1", "f")), RESULT]),
        (
            [call(), result(), call(), result()],
            [said("", ("c1", "f")), RESULT, said("", ("c1", "f")), RESULT],
        ),
        ([ASSISTANT, ASSISTANT], [said("One moment."), said("One moment.")]),
        ([thought("t"), ASSISTANT], [said("One moment.", thinking="t")]),
        ([thought("t"), call(), result()], [said("", ("c1", "f"), thinking="t"), RESULT]),
        ([thought("t"), ASSISTANT, call()], [said("One moment.", ("c1", "f"), thinking="t")]),
        ([thought("t"), thought("u"), call()], [said("", ("c1", "f"), thinking="t\nu")]),
        (
            [thought("t"), call(), thought("u"), call("c2", "g")],
            [said("", ("c1", "f"), ("c2", "g"), thinking="t\nu")],
        ),
        (
            [ASSISTANT, thought("t"), ASSISTANT],
            [said("One moment."), said("One moment.", thinking="t")],
        ),
        (
            [thought("t"), *user(text("x")), ASSISTANT],
            [{"role": "user", "content": "x"}, said("One moment.")],
        ),
        (
            [ASSISTANT, {"type": "web_search_call", "id": "ws_1", "status": "completed"}],
            [said("One moment.")],
        ),
        ([result("unknown")], [{"role": "tool", "content": "r", "tool_call_id": "unknown"}]),
        (
            [call(), result(output=[text("a"), image("data:image/png;base64,AAAA"), text("b")])],
            [said("", ("c1", "f")), RESULT | {"content": "a\nb", "images": ["AAAA"]}],
        ),
    ],
)
def test_items_of_one_turn_are_one_message(
    items: list[Document], expected: list[Document], ask: Ask
) -> None:
    assert messages(ask(input=items)) == expected


@pytest.mark.parametrize(
    ("item", "thinking"),
    [
        ({"encrypted_content": seal("ours")}, "ours"),
        (
            {"encrypted_content": seal("ours"), "summary": [{"type": "summary_text", "text": "s"}]},
            "ours",
        ),
        ({"encrypted_content": "gAAAAABfaKeCiPhErTeXt"}, None),
        ({"encrypted_content": "gw1.!!!"}, None),
        ({"encrypted_content": "gw1./w=="}, None),
        ({"encrypted_content": None}, None),
        (
            {
                "summary": [
                    {"type": "summary_text", "text": "s"},
                    {"type": "summary_text", "text": "t"},
                ]
            },
            "s\nt",
        ),
        ({"encrypted_content": "foreign", "summary": [{"type": "summary_text", "text": "s"}]}, "s"),
        (
            {
                "content": [{"type": "reasoning_text", "text": "plain"}],
                "summary": [{"type": "summary_text", "text": "s"}],
            },
            "plain",
        ),
    ],
)
def test_reasoning_item_is_the_thinking_of_what_follows(
    item: Document, thinking: str | None, ask: Ask
) -> None:
    asked = ask(input=[{"type": "reasoning", "id": "rs_1", "summary": []} | item, ASSISTANT])
    assert messages(asked) == [said("One moment.", thinking=thinking or "")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"b":1,"a":2}', '{"b":1,"a":2}'),
        ("", "{}"),
        (None, "{}"),
        ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
    ],
)
def test_arguments_become_an_object_in_their_order(
    arguments: Any, expected: str, ask: Ask, upstream: FaultUpstream
) -> None:
    """G18: nothing at all is an empty object."""
    messages(ask(input=[call(arguments=arguments), result()]))
    assert f'"arguments":{expected}'.encode() in forwarded(upstream)[-1].body


def test_own_output_can_be_sent_back_as_it_is(ask: Ask, upstream: FaultUpstream) -> None:
    calls = [{"id": "call_1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}]
    line = native_chat.done("One moment.", thinking="hm", tool_calls=calls)
    message = line["message"]
    upstream.script("/api/chat", [Json(line)])
    include = ["reasoning.encrypted_content"]
    output = ask(tools=[TOOL], include=include).answer.json()["output"]
    asked = ask(input=[*user(text("Hi")), *output, result("call_1")], tools=[TOOL], include=include)
    arguments = {"b": 1, "a": 2}
    assert messages(asked)[1:] == [
        message
        | {
            "tool_calls": [
                {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": arguments}}
            ]
        },
        RESULT | {"tool_call_id": "call_1"},
    ]
