"""Blocks of Anthropic's messages, tools and their results: what the upstream gets for
them, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.golden import anthropic_fates
from tests.golden.anthropic_fates import (
    PNG,
    SENT_TOOL,
    TOOL,
    USER,
    assert_refused,
    base64_image,
    document,
    image,
    text,
)
from tests.golden.face import forwarded
from tests.golden.fates import Ask, Document
from tests.rig import native_chat
from tests.rig.fault_upstream import FaultUpstream, Json

ask = anthropic_fates.ask


PLAIN = {"type": "text", "media_type": "text/plain", "data": "words"}
ENCODED = {
    "type": "base64",
    "media_type": "text/plain",
    "data": base64.b64encode("wörds".encode()).decode(),
}
PARTS = {"type": "content", "content": [text("a"), base64_image(), text("b")]}
FOUND = {
    "type": "search_result",
    "title": "T",
    "source": "https://example.org",
    "content": [text("x"), text("y")],
}


def one_message(ask: Ask, role: str, content: Any) -> Document:
    asked = ask(messages=[{"role": role, "content": content}])
    assert asked.answer.status == 200, asked.answer.text
    [one] = asked.sent["messages"]
    return dict(one)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", {"content": "a"}),
        (None, {"content": ""}),
        ([], {"content": ""}),
        ([text("a"), text("b")], {"content": "a\nb"}),
        (
            [{**text("a"), "cache_control": {"type": "ephemeral"}, "citations": None}],
            {"content": "a"},
        ),
        ([text("a"), base64_image(), text("b")], {"content": "a\nb", "images": [PNG]}),
        ([base64_image("AAAA\nAAAA\n")], {"content": "", "images": ["AAAA\nAAAA\n"]}),
        ([document(PLAIN)], {"content": "words"}),
        ([document(PLAIN, title="T", context="C")], {"content": "Title: T\nContext: C\nwords"}),
        ([document(PLAIN, title=None, citations={"enabled": True})], {"content": "words"}),
        ([document(ENCODED)], {"content": "wörds"}),
        ([document(PARTS, title="T")], {"content": "Title: T\na\nb", "images": [PNG]}),
        ([document({"type": "content", "content": "whole"})], {"content": "whole"}),
        ([FOUND], {"content": "Search result: T (https://example.org)\nx\ny"}),
    ],
)
def test_blocks_stay_one_message(content: Any, expected: Document, ask: Ask) -> None:
    assert one_message(ask, "user", content) == {"role": "user"} | expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", {"content": "a"}),
        ([text("a"), text("b")], {"content": "a\nb"}),
        (
            [{"type": "thinking", "thinking": "t", "signature": "x"}, text("a")],
            {"content": "a", "thinking": "t"},
        ),
        ([{"type": "thinking", "thinking": "t"}, text("a")], {"content": "a", "thinking": "t"}),
        ([{"type": "thinking", "thinking": "", "signature": "gw1.x"}, text("a")], {"content": "a"}),
        ([{"type": "redacted_thinking", "data": "x"}, text("a")], {"content": "a"}),
        (
            [
                {"type": "thinking", "thinking": "t"},
                text("a"),
                {"type": "thinking", "thinking": "u"},
            ],
            {"content": "a", "thinking": "t\nu"},
        ),
    ],
)
def test_blocks_of_the_assistant(content: Any, expected: Document, ask: Ask) -> None:
    assert one_message(ask, "assistant", content) == {"role": "assistant"} | expected


def test_system_may_be_blocks_and_may_come_later_too(ask: Ask) -> None:
    later = {"role": "system", "content": [text("c"), text("d")]}
    asked = ask(system=[text("a"), text("b")], messages=[*USER, later])
    assert asked.sent["messages"] == [
        {"role": "system", "content": "a\n\nb"},
        *USER,
        {"role": "system", "content": "c\nd"},
    ]


@pytest.mark.parametrize(
    ("role", "part", "where"),
    [
        ("user", "text", ""),
        ("user", {"text": "no type"}, ".type"),
        ("user", {"type": ["text"]}, ".type"),
        ("user", {"type": "text"}, ".text"),
        ("user", {"type": "container_upload", "file_id": "f"}, ".type"),
        ("user", {"type": "thinking", "thinking": "t"}, ".type"),
        ("user", {"type": "tool_use", "id": "t", "name": "f", "input": {}}, ".type"),
        ("user", image(None), ".source"),
        ("user", image({"type": "file", "file_id": "f"}), ".source.type"),
        ("user", image({"type": "url", "url": "ftp://example.org/cat.png"}), ".source.url"),
        ("user", image({"type": "url"}), ".source.url"),
        ("user", base64_image(None), ".source.data"),
        ("user", base64_image(""), ".source.data"),
        ("user", base64_image("not base64!"), ".source.data"),
        ("user", base64_image("AA*AA"), ".source.data"),
        ("user", base64_image("AAA"), ".source.data"),
        (
            "user",
            document({"type": "base64", "media_type": "application/pdf", "data": 5}),
            ".source.data",
        ),
        ("user", document({"type": "base64", "media_type": "image/png", "data": PNG}), ".source"),
        ("user", document({"type": "url", "url": "https://example.org/a.pdf"}), ".source"),
        ("user", document({"type": "file", "file_id": "f"}), ".source"),
        (
            "user",
            document({"type": "base64", "media_type": "text/plain", "data": PNG}),
            ".source.data",
        ),
        (
            "user",
            document({"type": "content", "content": [{"type": "video"}]}),
            ".source.content[0].type",
        ),
        ("user", document(PLAIN, title=5), ".title"),
        (
            "user",
            {"type": "search_result", "title": "T", "source": "s", "content": [base64_image()]},
            ".content[0]",
        ),
        ("user", {"type": "tool_result", "content": "r"}, ".tool_use_id"),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "video"}]},
            ".content[0].type",
        ),
        ("assistant", {"type": "tool_use", "name": "f", "input": {}}, ".id"),
        ("assistant", {"type": "tool_use", "id": "t", "input": {}}, ".name"),
        ("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": [1]}, ".input"),
        ("assistant", {"type": "thinking", "thinking": 5}, ".thinking"),
        (
            "assistant",
            {"type": "code_execution_tool_result", "tool_use_id": "t", "content": []},
            ".type",
        ),
        ("assistant", {"type": "mcp_tool_use", "id": "t", "name": "f", "input": {}}, ".type"),
        ("system", base64_image(), ".type"),
    ],
)
def test_block_that_cannot_be_used_is_named(role: str, part: Any, where: str, ask: Ask) -> None:
    asked = ask(messages=[{"role": role, "content": [text("a"), part]}])
    assert_refused(asked, f"messages[0].content[1]{where}")


@pytest.mark.parametrize("part", ["text", {"type": "image"}, {"type": "text", "text": 5}])
def test_part_of_the_system_prompt_that_is_no_text_is_named(part: Any, ask: Ask) -> None:
    assert_refused(ask(system=[text("a"), part]), "system[1]")


@pytest.mark.parametrize("role", ["tool", "developer", "", None, 5, "USER"])
def test_unknown_role_is_refused(role: Any, ask: Ask) -> None:
    assert_refused(ask(messages=[{"role": role, "content": "x"}]), "messages[0].role")


@pytest.mark.parametrize("content", [5, {"type": "text", "text": "a"}])
def test_content_of_another_kind_is_refused(content: Any, ask: Ask) -> None:
    assert_refused(ask(messages=[{"role": "user", "content": content}]), "messages[0].content")


def test_message_that_is_no_object_is_refused(ask: Ask) -> None:
    assert_refused(ask(messages=[*USER, "x"]), "messages[1]")


def test_image_of_a_private_address_is_refused_by_name(ask: Ask, upstream: FaultUpstream) -> None:
    """B20: fetched by policy, and this is none of the addresses that may be."""
    address = {"type": "url", "url": f"{upstream.url}/cat.png"}
    assert_refused(
        ask(messages=[{"role": "user", "content": [image(address)]}]),
        "messages[0].content[0].source.url",
    )
    assert not [seen for seen in forwarded(upstream) if seen.path == "/cat.png"]


# Tools and their results.

CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}}


def after_call(ask: Ask, *blocks: Document) -> list[Document]:
    """What is sent behind the message with the call."""
    history = [
        *USER,
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": list(blocks)},
    ]
    asked = ask(messages=history)
    assert asked.answer.status == 200, asked.answer.text
    return list(asked.sent["messages"][2:])


def result(content: Any, **beside: Any) -> Document:
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **beside}


TOOL_MESSAGE = {"role": "tool", "tool_name": "f", "tool_call_id": "t1"}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (result("r"), {"content": "r"}),
        (result(None), {"content": ""}),
        ({"type": "tool_result", "tool_use_id": "t1"}, {"content": ""}),
        (result([text("a"), text("b")]), {"content": "a\nb"}),
        (result([text("a"), base64_image()]), {"content": "a", "images": [PNG]}),
        (result("no", is_error=True), {"content": "Error: no"}),
        (result([text("no")], is_error=True), {"content": "Error: no"}),
        (result("fine", is_error=False), {"content": "fine"}),
        (result([document(PLAIN)]), {"content": "words"}),
        (result([FOUND]), {"content": "Search result: T (https://example.org)\nx\ny"}),
        (result([{"type": "tool_reference", "tool_name": "g"}]), {"content": "g"}),
    ],
)
def test_result_of_a_tool_is_a_message_with_the_name_of_the_tool(
    block: Document, expected: Document, ask: Ask
) -> None:
    """S2-48"""
    assert after_call(ask, block) == [TOOL_MESSAGE | expected]


def test_results_come_before_what_the_user_says_with_them(ask: Ask) -> None:
    sent_messages = after_call(ask, text("a"), result("r"), base64_image())
    assert sent_messages == [
        TOOL_MESSAGE | {"content": "r"},
        {"role": "user", "content": "a", "images": [PNG]},
    ]


def test_result_of_an_unknown_call_keeps_its_id(ask: Ask) -> None:
    [one] = ask(messages=[{"role": "user", "content": [result("r")]}]).sent["messages"]
    assert one == {"role": "tool", "content": "r", "tool_call_id": "t1"}


def test_arguments_keep_their_order(ask: Ask, upstream: FaultUpstream) -> None:
    after_call(ask, result("r"))
    assert (
        b'"arguments":{"b":1,"a":2}'
        in [one for one in forwarded(upstream) if one.path == "/api/chat"][-1].body
    )


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("stream", [True, False])
def test_arguments_that_are_nested_too_deep_are_refused(path: str, stream: bool, ask: Ask) -> None:
    deep: Document = {}
    for _ in range(300):
        deep = {"a": deep}
    asked = ask(
        path, stream=stream, messages=[{"role": "assistant", "content": [CALL | {"input": deep}]}]
    )
    assert "nested too deep" in assert_refused(asked, "")


def test_search_of_another_server_is_a_call_and_its_result(ask: Ask) -> None:
    hits = [
        {
            "type": "web_search_result",
            "title": "T",
            "url": "https://example.org",
            "encrypted_content": "x",
        }
    ]
    content = [
        text("a"),
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": hits},
        {"type": "server_tool_use", "id": "s2", "name": "web_search", "input": {"query": "r"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s2",
            "content": {"error_code": "unavailable"},
        },
    ]
    said, first, second = ask(messages=[{"role": "assistant", "content": content}]).sent["messages"]
    assert said["content"] == "a" and [call["id"] for call in said["tool_calls"]] == ["s1", "s2"]
    named = {"role": "tool", "tool_name": "web_search"}
    assert first == named | {"content": "- T: https://example.org", "tool_call_id": "s1"}
    assert second == named | {"content": "Error: unavailable", "tool_call_id": "s2"}


@pytest.mark.parametrize(
    ("tool", "sent_tool"),
    [
        (TOOL, SENT_TOOL),
        (
            {**TOOL, "type": "custom", "cache_control": {"type": "ephemeral"}, "strict": True},
            SENT_TOOL,
        ),
        ({**TOOL, "type": None}, SENT_TOOL),
        (SENT_TOOL, SENT_TOOL),
        ({"name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
    ids=["plain", "custom", "null", "openai", "bare"],
)
def test_tools_in_either_form(tool: Document, sent_tool: Document, ask: Ask) -> None:
    """S2-45"""
    assert ask(tools=[tool]).sent["tools"] == [sent_tool]


@pytest.mark.parametrize(
    ("kind", "name", "needed"),
    [
        ("bash_20250124", "bash", "command"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "path"),
        ("text_editor_20241022", "str_replace_editor", "command"),
        ("memory_20250818", "memory", "command"),
        ("computer_20250124", "computer", "action"),
    ],
)
def test_tool_that_the_client_runs_is_offered_with_a_schema(
    kind: str, name: str, needed: str, ask: Ask
) -> None:
    [tool] = ask(tools=[{"type": kind, "name": name}]).sent["tools"]
    function = tool["function"]
    assert function["name"] == name and function["description"]
    assert (
        function["parameters"]["type"] == "object"
        and needed in function["parameters"]["properties"]
    )


def test_model_is_told_how_large_the_screen_is(ask: Ask) -> None:
    screen = {
        "type": "computer_20250124",
        "name": "computer",
        "display_width_px": 1024,
        "display_height_px": 768,
    }
    assert "1024 x 768" in ask(tools=[screen]).sent["tools"][0]["function"]["description"]


@pytest.mark.parametrize(
    ("tool", "where"),
    [
        ({"type": 5}, ".type"),
        ({"type": "bash_20250124"}, ".name"),
        ({"type": "function"}, ".function"),
        ({**TOOL, "name": "two words"}, ".name"),
        ({**TOOL, "name": None}, ".name"),
        ({**TOOL, "input_schema": []}, ".input_schema"),
        ({**TOOL, "description": 5}, ".description"),
        ("f", ""),
    ],
)
def test_tool_that_cannot_be_used_is_named(tool: Any, where: str, ask: Ask) -> None:
    assert_refused(ask(tools=[TOOL, tool]), f"tools[1]{where}")


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "web_fetch_20250910", "name": "web_fetch"},
        {"type": "code_execution_20250825", "name": "code_execution"},
        {"type": "computer_toolset_20260801"},
        {"type": "mcp_toolset", "mcp_server_name": "x"},
    ],
)
def test_tool_that_anthropics_servers_run_is_left_out(tool: Any, ask: Ask) -> None:
    asked = ask(tools=[TOOL, tool])
    assert (len(asked.sent["tools"]), asked.ignored) == (1, [tool["type"]])


G = {**TOOL, "name": "g"}


@pytest.mark.parametrize("choice", [{"type": "none"}, "none"])
def test_G19_no_tool_is_shown_when_none_may_be_called(choice: Any, ask: Ask) -> None:
    assert "tools" not in ask(tools=[TOOL, G], tool_choice=choice).sent


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "any"}, ["f", "g"]),
        ("required", ["f", "g"]),
        ({"type": "tool", "name": "g"}, ["g"]),
    ],
    ids=["any", "required", "tool"],
)
def test_G19_call_that_is_demanded_is_asked_for(choice: Any, names: list[str], ask: Ask) -> None:
    asked = ask(tools=[TOOL, G], tool_choice=choice)
    assert [tool["function"]["name"] for tool in asked.sent["tools"]] == names
    [message] = asked.sent["messages"]
    assert message["role"] == "user" and "by calling" in message["content"]
    assert asked.answer.headers.get("X-Ollama-Proxy-Approximated") == "tool_choice"


@pytest.mark.parametrize("choice", [{"type": "auto"}, "auto", None])
def test_G19_model_decides_by_itself(choice: Any, ask: Ask) -> None:
    asked = ask(tools=[TOOL, G], tool_choice=choice)
    assert (len(asked.sent["tools"]), asked.sent["messages"]) == (2, USER)
    assert asked.answer.headers.get("X-Ollama-Proxy-Approximated") is None


@pytest.mark.parametrize(
    ("choice", "where"),
    [
        ({"type": "tool", "name": "h"}, "tool_choice.name"),
        ({"type": "tool"}, "tool_choice.name"),
        ({"type": "some"}, "tool_choice.type"),
        ("tool", "tool_choice.type"),
        ({}, "tool_choice.type"),
    ],
)
def test_choice_that_cannot_be_kept_is_named(choice: Any, where: str, ask: Ask) -> None:
    assert_refused(ask(tools=[TOOL], tool_choice=choice), where)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "f"}])
def test_choice_without_tools_is_refused(choice: Document, ask: Ask) -> None:
    assert_refused(ask(tool_choice=choice), "tool_choice")


@pytest.mark.parametrize("kind", ["auto", "any"])
@pytest.mark.parametrize(("disable", "calls"), [(True, 1), (False, 2), (None, 2)])
def test_parallel_calls_may_be_disabled(
    kind: str, disable: bool | None, calls: int, ask: Ask, upstream: FaultUpstream
) -> None:
    made = [{"id": f"c{n}", "function": {"name": "f", "arguments": {"n": n}}} for n in range(2)]
    upstream.script("/api/chat", [Json(native_chat.done(tool_calls=made))])
    answer = ask(
        tools=[TOOL], tool_choice={"type": kind, "disable_parallel_tool_use": disable}
    ).answer.json()
    assert [block["id"] for block in answer["content"]] == ["c0", "c1"][:calls]
    assert answer["stop_reason"] == "tool_use"
