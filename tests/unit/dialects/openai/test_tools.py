"""OpenAI's tools, in the current form and the older one, and what a request
says about calling them."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.openai.tools import (
    is_legacy,
    list_custom_tools,
    list_hosted_tools,
    load_tools,
)
from ollama_proxy.errors import BadRequest
from tests.rig.tables import each_row


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


TOOLS = [tool("f"), tool("g")]
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("g")]}}


@each_row(
    ("choice", "names", "loaded"),
    [
        (None, ["f", "g"], None),
        ("none", ["f", "g"], "none"),
        ("required", ["f", "g"], "required"),
        (tool("g"), ["f", "g"], {"name": "g"}),
        (ALLOWED, ["g"], "required"),
    ],
)
def test_choice(choice: Any, names: list[str], loaded: Any) -> None:
    tools, choice = load_tools({"tools": TOOLS, "tool_choice": choice})
    assert ([each.name for each in tools], choice) == (names, loaded)


def test_functions_are_the_older_form() -> None:
    data = {"functions": [{"name": "f"}], "function_call": {"name": "f"}}
    tools, choice = load_tools(data)
    assert (is_legacy(data), [each.name for each in tools], choice) == (True, ["f"], {"name": "f"})
    assert not is_legacy({"tools": TOOLS})


@each_row(
    "data",
    [
        {"tools": TOOLS, "tool_choice": tool("h")},
        {"tool_choice": "required"},
        {"tools": TOOLS, "functions": [{"name": "f"}]},
        {"tools": [{"type": 5}]},
        {"tools": [{"type": "web_search"}], "tool_choice": "required"},
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        {
            "tools": TOOLS,
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [tool("h")]},
            },
        },
        {
            "tools": TOOLS,
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": []}},
        },
        {"functions": [{"name": "f"}], "function_call": {"name": "g"}},
    ],
)
def test_choice_that_can_not_be_kept_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        load_tools(data)


CUSTOM = {"type": "custom", "custom": {"name": "patch", "description": "d"}}
GRAMMAR = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}


def test_a_custom_tool_is_a_function_with_one_text() -> None:
    data = {
        "tools": [CUSTOM, *TOOLS],
        "tool_choice": {"type": "custom", "custom": {"name": "patch"}},
    }
    tools, choice = load_tools(data)
    assert tools[0].parameters is not None and list(tools[0].parameters["properties"]) == ["input"]
    assert (choice, list_custom_tools(data)) == ({"name": "patch"}, {"patch": False})


def test_a_grammar_is_noticed() -> None:
    data = {"tools": [{"type": "custom", "custom": {"name": "patch", "format": GRAMMAR}}]}
    [loaded], _ = load_tools(data)
    assert "start: /x/" in str(loaded.description)
    assert list_custom_tools(data) == {"patch": True}


def test_tools_that_a_vendor_runs_are_left_out() -> None:
    entries = [{"type": "web_search"}, tool("f")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": entries}}
    data = {"tools": [{"type": "web_search"}, *TOOLS], "tool_choice": choice}
    tools, mode = load_tools(data)
    assert ([each.name for each in tools], mode, list_hosted_tools(data)) == (
        ["f"],
        "required",
        ["web_search"],
    )
