"""Tools whose input is text, as functions."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.tools import (
    check_choice,
    has_grammar,
    load_allowed_tools,
    load_custom_input,
    load_custom_tool,
    render_custom_input,
    without_hosted,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json, Tool, ToolChoice
from tests.rig.tables import each_row

FLAT = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
DEEP = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}


@pytest.mark.parametrize("format_", [FLAT, DEEP])
@pytest.mark.parametrize("description", ["Edit.", None])
def test_a_grammar_is_part_of_the_description(format_: Any, description: str | None) -> None:
    tool = {"name": "patch", "description": description, "format": format_}
    text = load_custom_tool(tool, "tools[0]").description
    assert text is not None and text.endswith("this lark grammar:\nstart: /x/")
    assert text.startswith(description or "The input")
    assert has_grammar(tool)


@pytest.mark.parametrize("format_", [None, {"type": "text"}])
def test_without_a_grammar_the_description_stays(format_: Any) -> None:
    tool = {"name": "patch", "description": "Edit.", "format": format_}
    assert load_custom_tool(tool, "tools[0]").description == "Edit."
    assert not has_grammar(tool)


@each_row(
    ("fields", "param"),
    [
        ({"name": "two words"}, "t.name"),
        ({"description": 5}, "t.description"),
        ({"format": 5}, "t.format"),
        ({"format": {"type": "xml"}}, "t.format.type"),
        ({"format": {"type": "grammar", "grammar": 5}}, "t.format.grammar"),
    ],
)
def test_what_is_not_a_custom_tool_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_custom_tool({"name": "patch"} | fields, "t")
    assert raised.value.param == param


def test_input_is_text_there_and_back() -> None:
    assert render_custom_input(load_custom_input("a\nb", "t")) == "a\nb"
    with pytest.raises(BadRequest):
        load_custom_input({"a": 1}, "t")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"patch": "x"}, "x"),
        ({"input": "x", "why": "y"}, "x"),
        ({}, "{}"),
        ({"a": "x", "b": "y"}, '{"a":"x","b":"y"}'),
    ],
)
def test_models_that_call_it_wrongly(arguments: dict[str, Any], text: str) -> None:
    assert render_custom_input(arguments) == text


TOOLS = [Tool(name, None, None) for name in ("f", "g", "h")]


def load(allowed: dict[str, Any]) -> tuple[list[str], str]:
    """Names of the tools that are left, and the mode; the entries of `tools` are plain names."""

    def load_name(entry: Json, where: str) -> str:
        return str(entry)

    left, mode = load_allowed_tools(allowed, TOOLS, "choice", load_name)
    return [tool.name for tool in left], mode


@each_row("mode", ["auto", "required"])
@each_row(("names", "left"), [(["g"], ["g"]), (["h", "f"], ["f", "h"]), ([], [])])
def test_only_allowed_tools_are_left_in_the_order_of_the_offer(
    mode: str, names: list[str], left: list[str]
) -> None:
    assert load({"mode": mode, "tools": names}) == (left, mode)


@each_row(
    ("allowed", "param", "text"),
    [
        ({"tools": ["f"]}, "choice.mode", "'auto' or 'required'"),
        ({"mode": "none", "tools": ["f"]}, "choice.mode", "'auto' or 'required'"),
        ({"mode": "auto"}, "choice.tools", "an array of functions"),
        ({"mode": "auto", "tools": "f"}, "choice.tools", "an array of functions"),
        (
            {"mode": "auto", "tools": ["f", "x" * 100]},
            "choice.tools",
            f"this request defines no tool '{'x' * 80}'",
        ),
    ],
)
def test_what_cannot_be_allowed_is_refused_by_name(
    allowed: dict[str, Any], param: str, text: str
) -> None:
    with pytest.raises(BadRequest, match=text) as refusal:
        load(allowed)
    assert refusal.value.param == param


@each_row("choice", [None, "none", "auto", "required", {"name": "f"}])
def test_a_choice_among_the_tools_passes(choice: ToolChoice) -> None:
    check_choice(choice, TOOLS, "tool_choice")


@pytest.mark.parametrize(
    ("choice", "tools"), [("required", []), ({"name": "f"}, []), ({"name": "x"}, TOOLS)]
)
def test_a_call_of_what_is_not_on_offer_is_refused(choice: ToolChoice, tools: list[Tool]) -> None:
    with pytest.raises(BadRequest, match="this request defines no tool") as refusal:
        check_choice(choice, tools, "tool_choice")
    assert refusal.value.param == "tool_choice"


def test_tools_that_are_left_out_are_not_allowed_either() -> None:
    entries = [{"type": "web_search"}, {"type": "function", "name": "f"}, "odd"]
    assert without_hosted({"mode": "auto", "tools": entries}, ["web_search"]) == {
        "mode": "auto",
        "tools": entries[1:],
    }
    assert without_hosted({"tools": 5}, ["web_search"]) == {"tools": 5}
