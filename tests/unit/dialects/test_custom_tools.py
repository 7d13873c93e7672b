"""Tools whose input is text, as functions."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.custom_tools import has_grammar, load_custom_input, load_custom_tool, render_custom_input
from ollama_proxy.errors import BadRequest

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


@pytest.mark.parametrize(
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
    [({"patch": "x"}, "x"), ({"input": "x", "why": "y"}, "x"), ({}, "{}"), ({"a": "x", "b": "y"}, '{"a":"x","b":"y"}')],
)
def test_models_that_call_it_wrongly(arguments: dict[str, Any], text: str) -> None:
    assert render_custom_input(arguments) == text
