"""Load the tools of a request and its tool choice, in OpenAI's current form and the older one."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects.content_parts import load_function
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.dialects.tool_choice import check_choice, load_allowed_tools
from ollama_proxy.hub import Json, Tool, ToolChoice
from ollama_proxy.upstreams import pace


def is_legacy(data: Mapping[str, Json]) -> bool:
    """Whether the request defines its tools as `functions`, so that calls are returned in the older form."""
    return bool(data.get("functions"))


def load_tools(data: Mapping[str, Json]) -> tuple[list[Tool], ToolChoice]:
    """Return the tools, with their schemas unchanged, and the tool choice; raises BadRequest for the choice of a tool
    that the request does not define."""
    tools: list[Tool] = []
    for index, tool in enumerate(pace(data.get("tools") or [])):
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            raise_invalid(f"tools[{index}].type", "must be 'function': no other type of tool is supported")
        tools.append(load_function(tool.get("function"), f"tools[{index}].function", carries=True))
    if is_legacy(data):
        if tools:
            raise_invalid("functions", "can't be combined with tools")
        return _load_functions(data)
    choice = data.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = as_object(choice.get("allowed_tools"), "tool_choice.allowed_tools")
        tools, choice = load_allowed_tools(allowed, tools, "tool_choice.allowed_tools", _load_name)
    elif choice not in (None, "none", "auto", "required"):
        choice = {"name": _load_name(choice, "tool_choice")}
    check_choice(choice, tools, "tool_choice")
    return tools, choice


def _load_functions(data: Mapping[str, Json]) -> tuple[list[Tool], ToolChoice]:
    tools = [load_function(one, f"functions[{index}]", carries=True) for index, one in enumerate(data["functions"])]
    choice = data.get("function_call")
    if choice not in (None, "none", "auto"):
        choice = {"name": as_text(as_object(choice, "function_call").get("name"), "function_call.name")}
    check_choice(choice, tools, "function_call")
    return tools, choice


def _load_name(tool: Json, where: str) -> str:
    function = as_object(as_object(tool, where).get("function"), f"{where}.function")
    return as_text(function.get("name"), f"{where}.function.name")
