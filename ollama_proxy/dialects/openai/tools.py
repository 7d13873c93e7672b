"""The tools that a request offers and what it says about calling them, in OpenAI's current form and the older one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.schema_fields import as_object, as_text, bad
from ollama_proxy.hub import Json, Tool, ToolChoice
from ollama_proxy.upstreams import paced


def is_legacy(data: Mapping[str, Json]) -> bool:
    """Whether calls are asked for by `functions`, and are to be answered in that form."""
    return bool(data.get("functions"))


def load_offer(data: Mapping[str, Json]) -> tuple[list[Tool], ToolChoice]:
    """The tools on offer and what is to be done with them; raises BadRequest for a choice that they don't have."""
    tools = load_tools(data.get("tools") or [])
    if not is_legacy(data):
        tools, choice = _narrowed(tools, data.get("tool_choice"))
        check_choice(choice, tools, "tool_choice")
        return tools, choice
    if tools:
        bad("functions", "can't stand beside tools")
    tools = [
        content_parts.load_function(one, f"functions[{index}]", carries=True)
        for index, one in enumerate(data["functions"])
    ]
    choice = _load_function_call(data.get("function_call"))
    check_choice(choice, tools, "function_call")
    return tools, choice


def load_tools(tools: Sequence[Json]) -> list[Tool]:
    """The tools on offer; their schemas are not touched."""
    return [_load_tool(tool, f"tools[{index}]") for index, tool in enumerate(paced(tools))]


def _load_tool(tool: Json, where: str) -> Tool:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        bad(f"{where}.type", "only tools of the type 'function' are supported")
    return content_parts.load_function(tool.get("function"), f"{where}.function", carries=True)


def _narrowed(tools: list[Tool], choice: Json) -> tuple[list[Tool], ToolChoice]:
    """The tools that may be called: with `allowed_tools` only those."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools, load_tool_choice(choice)
    allowed = as_object(choice.get("allowed_tools"), "tool_choice.allowed_tools")
    mode, named = allowed.get("mode"), allowed.get("tools")
    if mode not in ("auto", "required"):
        bad("tool_choice.allowed_tools.mode", "must be auto or required")
    if not isinstance(named, list):
        bad("tool_choice.allowed_tools.tools", "must be a list")
    names = {_name(one, f"tool_choice.allowed_tools.tools[{index}]") for index, one in enumerate(named)}
    _check_offered(names, tools, "tool_choice.allowed_tools.tools")
    return [tool for tool in tools if tool.name in names], str(mode)


def load_tool_choice(choice: Json) -> ToolChoice:
    """none, auto, required, or the one tool that is meant."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice  # type: ignore[no-any-return]  # one of the three words
    return {"name": _name(choice, "tool_choice")}


def _name(tool: Json, where: str) -> str:
    function = as_object(as_object(tool, where).get("function"), f"{where}.function")
    return as_text(function.get("name"), f"{where}.function.name")


def _load_function_call(choice: Json) -> ToolChoice:
    if choice is None or choice in ("none", "auto"):
        return choice  # type: ignore[no-any-return]  # one of the two words
    return {"name": as_text(as_object(choice, "function_call").get("name"), "function_call.name")}


def check_choice(choice: ToolChoice, tools: Sequence[Tool], param: str) -> None:
    """Raises BadRequest when the tool that must be called is not on offer."""
    if choice == "required" and not tools:
        bad(param, "no tools are on offer")
    if isinstance(choice, Mapping):
        _check_offered({choice["name"]}, tools, param)


def _check_offered(names: set[str], tools: Sequence[Tool], param: str) -> None:
    missing = names - {tool.name for tool in tools}
    if missing:
        bad(param, f"the tool '{min(missing)[:80]}' is not on offer")
