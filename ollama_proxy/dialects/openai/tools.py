"""Load the tools of a request and its tool choice, in OpenAI's current form and the older one."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects.content_parts import load_function
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.dialects.tools import (
    check_choice,
    has_grammar,
    load_allowed_tools,
    load_custom_tool,
    without_hosted,
)
from ollama_proxy.hub import Json, Tool, ToolChoice
from ollama_proxy.upstreams import pace

FUNCTION, CUSTOM = "function", "custom"


def is_legacy(data: Mapping[str, Json]) -> bool:
    """Whether the request defines its tools as `functions`, so that calls are
    returned in the older form."""
    return bool(data.get("functions"))


def list_hosted_tools(data: Mapping[str, Json]) -> list[str]:
    """Return what is left out because only the vendor's servers can run it: types of tools, and the
    field for a search. The tools must have been loaded."""
    kinds = dict.fromkeys(tool.get("type", FUNCTION) for tool in data.get("tools") or ())
    hosted = [kind for kind in kinds if kind not in (FUNCTION, CUSTOM)]
    # An empty object asks for a search, too, but is no passthrough field.
    return [*hosted, "web_search_options"] if data.get("web_search_options") == {} else hosted


def list_custom_tools(data: Mapping[str, Json]) -> Mapping[str, bool]:
    """Return the names of the custom tools, and whether each has a grammar. The tools
    must have been loaded."""
    tools = [tool["custom"] for tool in data.get("tools") or () if tool.get("type") == CUSTOM]
    return {tool["name"]: has_grammar(tool) for tool in tools}


def load_tools(data: Mapping[str, Json]) -> tuple[list[Tool], ToolChoice]:
    """Return the tools, with their schemas unchanged, and the tool choice; raises BadRequest for
    the choice of a tool that the request does not define."""
    tools: list[Tool] = []
    for index, tool in enumerate(pace(data.get("tools") or [])):
        if (one := _load_tool(tool, f"tools[{index}]")) is not None:
            tools.append(one)
    if is_legacy(data):
        if tools:
            raise_invalid("functions", "can't be combined with tools")
        tools = [
            load_function(one, f"functions[{index}]", carries=True)
            for index, one in enumerate(data["functions"])
        ]
        choice = data.get("function_call")
        if choice not in (None, "none", "auto"):
            choice = {
                "name": as_text(
                    as_object(choice, "function_call").get("name"), "function_call.name"
                )
            }
        check_choice(choice, tools, "function_call")
        return tools, choice
    choice = data.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        named = as_object(choice.get("allowed_tools"), "tool_choice.allowed_tools")
        allowed = without_hosted(named, list_hosted_tools(data))
        tools, choice = load_allowed_tools(allowed, tools, "tool_choice.allowed_tools", _load_name)
    elif choice not in (None, "none", "auto", "required"):
        choice = {"name": _load_name(choice, "tool_choice")}
    check_choice(choice, tools, "tool_choice")
    return tools, choice


def _load_tool(tool: Json, where: str) -> Tool | None:
    """Load one tool; None if only the vendor's servers can run it."""
    match tool.get("type", FUNCTION) if isinstance(tool, dict) else None:
        case "function":
            return load_function(tool.get("function"), f"{where}.function", carries=True)
        case "custom":
            return load_custom_tool(
                as_object(tool.get("custom"), f"{where}.custom"), f"{where}.custom"
            )
        case kind:
            as_text(kind, f"{where}.type")
            return None


def _load_name(tool: Json, where: str) -> str:
    kind = CUSTOM if as_object(tool, where).get("type") == CUSTOM else FUNCTION
    named = as_object(tool.get(kind), f"{where}.{kind}")
    return as_text(named.get("name"), f"{where}.{kind}.name")
