"""Which of the tools on offer may be called, and which one must be."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.tool_choice import check_choice, load_allowed_tools, without_hosted
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json, Tool, ToolChoice

TOOLS = [Tool(name, None, None) for name in ("f", "g", "h")]


def load(allowed: dict[str, Any]) -> tuple[list[str], str]:
    """Names of the tools that are left, and the mode; the entries of `tools` are plain names."""

    def load_name(entry: Json, where: str) -> str:
        return str(entry)

    left, mode = load_allowed_tools(allowed, TOOLS, "choice", load_name)
    return [tool.name for tool in left], mode


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize(("names", "left"), [(["g"], ["g"]), (["h", "f"], ["f", "h"]), ([], [])])
def test_only_allowed_tools_are_left_in_the_order_of_the_offer(mode: str, names: list[str], left: list[str]) -> None:
    assert load({"mode": mode, "tools": names}) == (left, mode)


@pytest.mark.parametrize(
    ("allowed", "param", "text"),
    [
        ({"tools": ["f"]}, "choice.mode", "'auto' or 'required'"),
        ({"mode": "none", "tools": ["f"]}, "choice.mode", "'auto' or 'required'"),
        ({"mode": "auto"}, "choice.tools", "an array of functions"),
        ({"mode": "auto", "tools": "f"}, "choice.tools", "an array of functions"),
        ({"mode": "auto", "tools": ["f", "x" * 100]}, "choice.tools", f"this request defines no tool '{'x' * 80}'"),
    ],
)
def test_what_cannot_be_allowed_is_refused_by_name(allowed: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(BadRequest, match=text) as refusal:
        load(allowed)
    assert refusal.value.param == param


@pytest.mark.parametrize("choice", [None, "none", "auto", "required", {"name": "f"}])
def test_a_choice_among_the_tools_passes(choice: ToolChoice) -> None:
    check_choice(choice, TOOLS, "tool_choice")


@pytest.mark.parametrize(("choice", "tools"), [("required", []), ({"name": "f"}, []), ({"name": "x"}, TOOLS)])
def test_a_call_of_what_is_not_on_offer_is_refused(choice: ToolChoice, tools: list[Tool]) -> None:
    with pytest.raises(BadRequest, match="this request defines no tool") as refusal:
        check_choice(choice, tools, "tool_choice")
    assert refusal.value.param == "tool_choice"


def test_tools_that_are_left_out_are_not_allowed_either() -> None:
    entries = [{"type": "web_search"}, {"type": "function", "name": "f"}, "odd"]
    assert without_hosted({"mode": "auto", "tools": entries}, ["web_search"]) == {"mode": "auto", "tools": entries[1:]}
    assert without_hosted({"tools": 5}, ["web_search"]) == {"tools": 5}
