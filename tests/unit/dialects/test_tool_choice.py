"""What a request says about calling its tools."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.tool_choice import check_choice, load_allowed_tools
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Tool

TOOLS = [Tool(name, None, None) for name in ("f", "g")]


def load(allowed: Any) -> tuple[list[str], str]:
    tools, mode = load_allowed_tools(allowed, TOOLS, "choice", lambda entry, where: str(entry))
    return [tool.name for tool in tools], mode


def test_only_the_allowed_tools_are_left() -> None:
    assert load({"mode": "required", "tools": ["g"]}) == (["g"], "required")
    assert load({"mode": "auto", "tools": []}) == ([], "auto")


@pytest.mark.parametrize(
    ("allowed", "param"),
    [
        ({"mode": "none", "tools": []}, "choice.mode"),
        ({"mode": "auto", "tools": "g"}, "choice.tools"),
        ({"mode": "auto", "tools": ["h"]}, "choice.tools"),
    ],
)
def test_what_is_wrong_is_named(allowed: Any, param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load(allowed)
    assert raised.value.param == param


@pytest.mark.parametrize(("choice", "tools"), [("required", []), ({"name": "h"}, TOOLS)])
def test_a_tool_that_must_be_called_is_on_offer(choice: Any, tools: list[Tool]) -> None:
    with pytest.raises(BadRequest, match="on offer"):
        check_choice(choice, tools, "tool_choice")


@pytest.mark.parametrize("choice", [None, "auto", "none", "required", {"name": "f"}])
def test_everything_else_is_fine(choice: Any) -> None:
    check_choice(choice, TOOLS, "tool_choice")
