"""Custom tools of OpenAI's APIs, whose input is text instead of JSON: the model gets a function with one string.

A grammar for that text can't be enforced, so it becomes part of the description.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from ollama_proxy.dialects.content_parts import load_function
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.hub import Json, Tool

_PARAMETERS: Mapping[str, Json] = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The whole input of the tool, as plain text."}},
    "required": ["input"],
}


def load_custom_tool(tool: Mapping[str, Json], where: str) -> Tool:
    """Load a custom tool as a function, with its grammar in the description."""
    description = tool.get("description")
    if description is not None:
        as_text(description, f"{where}.description")
    if grammar := _load_grammar(tool, where):
        rule = f"The input must match this {grammar.get('syntax')} grammar:\n{grammar.get('definition')}"
        description = f"{description}\n\n{rule}" if description else rule
    function = {"name": tool.get("name"), "description": description, "parameters": _PARAMETERS}
    return load_function(function, where)


def has_grammar(tool: Mapping[str, Json]) -> bool:
    """Whether the input of a custom tool has to match a grammar."""
    return (tool.get("format") or {}).get("type") == "grammar"


def _load_grammar(tool: Mapping[str, Json], where: str) -> Mapping[str, Json]:
    """Return the grammar, {} if there is none. Chat completions have it one level deeper than responses."""
    wanted = as_object(tool.get("format") or {}, f"{where}.format")
    match wanted.get("type"):
        case "grammar":
            return as_object(wanted.get("grammar") or wanted, f"{where}.format.grammar")
        case None | "text":
            return {}
        case _:
            raise_invalid(f"{where}.format.type", "must be 'text' or 'grammar'")


def load_custom_input(text: Json, where: str) -> dict[str, Json]:
    """Return the arguments of the function for the input of an earlier call."""
    return {"input": as_text(text, where)}


def render_custom_input(arguments: Mapping[str, Json]) -> str:
    """Return the text of a call. Models sometimes choose another name for the only argument."""
    text = arguments.get("input")
    if text is None and len(arguments) == 1:
        [text] = arguments.values()
    return text if isinstance(text, str) else orjson.dumps(arguments).decode()
