"""Anthropic's tools: those with a schema of their own, those that are known by their type,
and the choice of one."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.anthropic.tools import load_tool_choice, load_tools
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Tool
from tests.rig.tables import each_row

SCHEMA = {"type": "object", "properties": {"z": {}, "a": {}}}
TOOLS = [Tool("f", None, None)]


def test_own_schema_is_not_touched() -> None:
    [tool], _ = load_tools([{"name": "f", "description": "d", "input_schema": SCHEMA}])
    assert (tool.name, tool.description, tool.parameters) == ("f", "d", SCHEMA)


def test_openais_form_is_read_too() -> None:
    [tool], _ = load_tools([{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}])
    assert (tool.name, tool.parameters) == ("f", SCHEMA)


def test_tool_that_the_client_runs_gets_the_schema_of_its_kind() -> None:
    tool = {
        "type": "computer_20250124",
        "name": "computer",
        "display_width_px": 800,
        "display_height_px": 600,
    }
    [loaded], _ = load_tools([tool])
    assert loaded.parameters is not None
    assert loaded.parameters["required"] == ["action"]
    assert "800 x 600" in str(loaded.description)


@pytest.mark.parametrize("kind", ["web_search_20250305", "code_execution_20250522", "mcp_toolset"])
def test_tool_that_anthropics_servers_run_is_left_out(kind: str) -> None:
    hosted = {"type": kind, "name": "x"}
    [tool], left_out = load_tools([hosted, {"name": "f"}, hosted])
    assert (tool.name, left_out) == ("f", [kind])


@each_row(
    ("choice", "loaded"),
    [
        (None, None),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ("required", "required"),
        ({"type": "tool", "name": "f"}, {"name": "f"}),
    ],
)
def test_choice(choice: Any, loaded: Any) -> None:
    assert load_tool_choice(choice, TOOLS) == loaded


@pytest.mark.parametrize(
    "choice", [{"type": "tool", "name": "g"}, {"type": "maybe"}, {"type": "tool"}, 1]
)
def test_choice_of_what_is_not_there_is_refused(choice: Any) -> None:
    with pytest.raises(BadRequest):
        load_tool_choice(choice, TOOLS)


def test_any_tool_needs_a_tool() -> None:
    with pytest.raises(BadRequest):
        load_tool_choice({"type": "any"}, [])
