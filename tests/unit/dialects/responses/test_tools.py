"""Tools under the names that the model knows, and the forms in which their calls return."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.responses.tools import (
    MAX_JOINED_CHARS,
    Toolbox,
    ToolForm,
    is_offered,
    load_tool_choice,
)
from ollama_proxy.errors import BadRequest
from tests.rig.tables import each_row

ECHO = {"type": "function", "name": "echo"}
LAB = {
    "type": "namespace",
    "name": "mcp__lab",
    "description": "",
    "tools": [ECHO, {"type": "custom", "name": "exec"}],
}
SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "Find tools.",
    "parameters": {"type": "object"},
}
HOSTED = {"type": "web_search", "external_web_access": True}
NAMES = ["echo", "mcp__lab__echo", "mcp__lab__exec"]


def filled(*tools: Any) -> Toolbox:
    toolbox = Toolbox()
    toolbox.add([*tools], "tools")
    return toolbox


def test_a_namespace_is_joined_and_apart_again() -> None:
    toolbox = filled(ECHO, LAB)
    assert [*toolbox.tools] == NAMES
    assert toolbox.forms["mcp__lab__echo"] == ToolForm("function", "echo", "mcp__lab")
    assert toolbox.forms["mcp__lab__exec"] == ToolForm("custom", "exec", "mcp__lab")


def test_a_joined_name_that_providers_refuse_is_shortened_and_apart_again() -> None:
    namespace, names = "mcp__" + "laboratory_" * 5, ["read_file", "read_files", "w" * 64]
    long = {
        "type": "namespace",
        "name": namespace,
        "tools": [ECHO | {"name": name} for name in names],
    }
    toolbox = filled(long)
    assert [len(name) for name in toolbox.tools] == [MAX_JOINED_CHARS] * 3
    first = next(iter(toolbox.tools))
    assert first.startswith("mcp__laboratory_") and first.endswith("__read_file")
    for tool, name in zip(toolbox.tools.values(), names, strict=True):
        form = ToolForm("function", name, namespace)
        assert toolbox.forms[tool.name] == form
        # In an older turn whose tools are not sent any more.
        assert Toolbox().flat_name(form) == tool.name


def test_two_tools_never_have_the_same_name() -> None:
    toolbox = filled({"type": "function", "name": "mcp__lab__echo"}, LAB)
    assert [*toolbox.tools] == ["mcp__lab__echo", "mcp__lab__echo_", "mcp__lab__exec"]
    assert toolbox.flat_name(ToolForm("function", "echo", "mcp__lab")) == "mcp__lab__echo_"


def test_a_tool_that_is_defined_again_is_replaced() -> None:
    toolbox = filled(ECHO, ECHO | {"description": "newer"})
    assert [tool.description for tool in toolbox.tools.values()] == ["newer"]


def test_tools_of_the_vendors_servers_are_left_out() -> None:
    toolbox = filled(HOSTED, {"type": "tool_search"}, ECHO, HOSTED, SEARCH)
    assert [*toolbox.tools] == ["echo", "tool_search"]
    assert toolbox.hosted == ["web_search", "tool_search"]
    assert [is_offered(tool) for tool in (HOSTED, {"type": "tool_search"}, SEARCH, LAB)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_grammar_is_noticed() -> None:
    assert filled(LAB).approximated == ()
    grammar = {"type": "grammar", "syntax": "regex", "definition": "x"}
    assert filled({"type": "custom", "name": "patch", "format": grammar}).approximated == ("tools",)


@each_row(
    ("tool", "where"),
    [
        ("echo", "tools[0].type"),
        ({"name": "echo"}, "tools[0].type"),
        ({"type": "namespace", "tools": [ECHO]}, "tools[0].name"),
        ({"type": "namespace", "name": "a b", "tools": [ECHO]}, "tools[0].name"),
        ({"type": "namespace", "name": "a"}, "tools[0].tools"),
        (
            {"type": "namespace", "name": "a", "tools": [{"type": "function"}]},
            "tools[0].tools[0].name",
        ),
        ({"type": "custom"}, "tools[0].name"),
        (ECHO | {"strict": 1}, "tools[0].strict"),
    ],
)
def test_what_is_not_a_tool_is_named(tool: Any, where: str) -> None:
    with pytest.raises(BadRequest) as raised:
        filled(tool)
    assert raised.value.param == where


def allowed(mode: str, *entries: Any) -> Any:
    return {"type": "allowed_tools", "mode": mode, "tools": [*entries]}


@each_row(
    ("choice", "names", "loaded"),
    [
        (None, NAMES, None),
        ({"type": "function", "name": "echo"}, NAMES, {"name": "echo"}),
        (
            {"type": "custom", "name": "exec", "namespace": "mcp__lab"},
            NAMES,
            {"name": "mcp__lab__exec"},
        ),
        (allowed("required", HOSTED, ECHO), ["echo"], "required"),
        (allowed("auto", HOSTED), [], "auto"),
    ],
)
def test_choice(choice: Any, names: list[str], loaded: Any) -> None:
    tools, mode = load_tool_choice(choice, filled(ECHO, LAB, HOSTED))
    assert ([tool.name for tool in tools], mode) == (names, loaded)


@each_row(
    ("choice", "where"),
    [
        ({"type": "web_search"}, "tool_choice.type"),
        ({"type": "file_search"}, "tool_choice.type"),
        ({"type": "custom", "name": "echo"}, "tool_choice.name"),
        ({"type": "function", "name": "exec", "namespace": 5}, "tool_choice.namespace"),
        (allowed("required", HOSTED), "tool_choice.tools"),
        (allowed("auto"), "tool_choice.tools"),
    ],
)
def test_choice_that_demands_what_is_not_there_is_refused(choice: Any, where: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_tool_choice(choice, filled(ECHO, LAB, HOSTED))
    assert raised.value.param == where


def test_only_hosted_tools_can_not_be_required() -> None:
    with pytest.raises(BadRequest):
        load_tool_choice("required", filled(HOSTED))
