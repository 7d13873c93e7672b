"""Load what the tools of chat completions and responses have in common: custom
tools, and the tool choice.

The input of a custom tool is text instead of JSON: the model gets a function with one string. A
grammar for that text can't be enforced, so it becomes part of the description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson

from ollama_proxy.dialects.content_parts import load_function
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.hub import Json, Tool, ToolChoice

_PARAMETERS: Mapping[str, Json] = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "The whole input of the tool, as plain text."}
    },
    "required": ["input"],
}


def load_custom_tool(tool: Mapping[str, Json], where: str) -> Tool:
    """Load a custom tool as a function, with its grammar in the description."""
    description = tool.get("description")
    if description is not None:
        as_text(description, f"{where}.description")
    wanted = as_object(tool.get("format") or {}, f"{where}.format")
    if wanted.get("type") not in (None, "text", "grammar"):
        raise_invalid(f"{where}.format.type", "must be 'text' or 'grammar'")
    if has_grammar(tool):
        # Chat completions have it one level deeper than responses.
        grammar = as_object(wanted.get("grammar") or wanted, f"{where}.format.grammar")
        rule = (
            f"The input must match this {grammar.get('syntax')} "
            f"grammar:\n{grammar.get('definition')}"
        )
        description = f"{description}\n\n{rule}" if description else rule
    function = {"name": tool.get("name"), "description": description, "parameters": _PARAMETERS}
    return load_function(function, where)


def has_grammar(tool: Mapping[str, Json]) -> bool:
    """Whether the input of a custom tool has to match a grammar."""
    return (tool.get("format") or {}).get("type") == "grammar"


def load_custom_input(text: Json, where: str) -> dict[str, Json]:
    """Return the arguments of the function for the input of an earlier call."""
    return {"input": as_text(text, where)}


def render_custom_input(arguments: Mapping[str, Json]) -> str:
    """Return the text of a call. Models sometimes choose another name for the only argument."""
    text = arguments.get("input")
    if text is None and len(arguments) == 1:
        [text] = arguments.values()
    return text if isinstance(text, str) else orjson.dumps(arguments).decode()


def load_allowed_tools(
    allowed: Mapping[str, Json],
    tools: Sequence[Tool],
    where: str,
    load_name: Callable[[Json, str], str],
) -> tuple[list[Tool], str]:
    """Return the tools that `allowed_tools` leaves, and its mode, auto or required;
    raises BadRequest for a tool that the request does not define. `load_name` returns the
    name of one of its entries."""
    mode, entries = allowed.get("mode"), allowed.get("tools")
    if mode not in ("auto", "required"):
        raise_invalid(f"{where}.mode", "must be 'auto' or 'required'")
    if not isinstance(entries, list):
        raise_invalid(f"{where}.tools", "must be an array of functions")
    names = {load_name(entry, f"{where}.tools[{index}]") for index, entry in enumerate(entries)}
    check_defined(names, tools, f"{where}.tools")
    return [tool for tool in tools if tool.name in names], str(mode)


def without_hosted(allowed: Mapping[str, Json], hosted: Sequence[str]) -> Mapping[str, Json]:
    """Return `allowed_tools` without tools of the types in `hosted`, which are left out
    of the request anyway."""
    entries = allowed.get("tools")
    if not hosted or not isinstance(entries, list):
        return allowed
    kept = [
        entry for entry in entries if not isinstance(entry, dict) or entry.get("type") not in hosted
    ]
    return {**allowed, "tools": kept}


def check_choice(choice: ToolChoice, tools: Sequence[Tool], param: str) -> None:
    """Raises BadRequest if the choice requires a tool that the request does not define."""
    if choice == "required" and not tools:
        raise_invalid(param, "this request defines no tools")
    if isinstance(choice, Mapping):
        check_defined({choice["name"]}, tools, param)


def check_defined(names: set[str], tools: Sequence[Tool], param: str) -> None:
    """Raises BadRequest for the name of a tool that the request does not define."""
    if missing := names - {tool.name for tool in tools}:
        raise_invalid(param, f"this request defines no tool '{min(missing)[:80]}'")
