"""Load Anthropic's tools as hub tools: those with a schema, and those that are
defined only by their type.

Of the latter, the client runs some (a shell, an editor, a screen), so the model gets the schema
that Anthropic's models know. Anthropic's servers run the others, which are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects.content_parts import load_function
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid
from ollama_proxy.dialects.tools import check_choice, check_defined
from ollama_proxy.hub import Json, Tool, ToolChoice
from ollama_proxy.upstreams import pace

_TEXT: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer"}
_POINT: Json = {"type": "array", "items": _INTEGER, "minItems": 2, "maxItems": 2}


def _schema(*required: str, **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def _one_of(*words: str) -> Json:
    return {"type": "string", "enum": list(words)}


_EDITING: dict[str, Json] = {
    "path": _TEXT,
    "file_text": _TEXT,
    "old_str": _TEXT,
    "new_str": _TEXT,
    "insert_line": _INTEGER,
    "insert_text": _TEXT,
    "view_range": _POINT,
}

#: Description and schema of the tools that the client runs, by the beginning of their type.
_CLIENTS: Mapping[str, tuple[str, Json]] = {
    "bash_": (
        "Run a command in a shell that stays open; 'restart' starts it anew.",
        _schema(command=_TEXT, restart={"type": "boolean"}),
    ),
    "text_editor_": (
        "View, create and edit text files.",
        _schema(
            "command",
            "path",
            command=_one_of("view", "create", "str_replace", "insert"),
            **_EDITING,
        ),
    ),
    "memory_": (
        "View, create, edit, delete and rename files below /memories, which "
        "outlast a conversation.",
        _schema(
            "command",
            command=_one_of("view", "create", "str_replace", "insert", "delete", "rename"),
            **_EDITING,
            old_path=_TEXT,
            new_path=_TEXT,
        ),
    ),
    "computer_": (
        "Look at a screen, and use its mouse and keyboard; coordinates are [x, y] in "
        "pixels from the top left.",
        _schema(
            "action",
            action=_TEXT,
            coordinate=_POINT,
            start_coordinate=_POINT,
            text=_TEXT,
            scroll_direction=_one_of("up", "down", "left", "right"),
            scroll_amount=_INTEGER,
            duration={"type": "number"},
        ),
    ),
}


def load_tools(tools: list[Json]) -> tuple[list[Tool], list[str]]:
    """Return the tools, with the schemas of the client unchanged, and the types of those that are
    left out because only Anthropic's servers can run them."""
    loaded: list[Tool] = []
    hosted: list[str] = []
    for index, tool in enumerate(pace(tools)):
        if (one := _load_tool(tool, f"tools[{index}]")) is not None:
            loaded.append(one)
        elif tool["type"] not in hosted:
            hosted.append(tool["type"])
    return loaded, hosted


def _load_tool(tool: Json, where: str) -> Tool | None:
    """Load one tool; None if only Anthropic's servers can run it."""
    kind = as_object(tool, where).get("type") or "custom"
    if kind == "function":
        # OpenAI's form, which clients send that only have another base URL.
        return load_function(tool.get("function"), f"{where}.function")
    if kind == "custom":
        return load_function(tool, where, schema="input_schema")
    kind = as_text(kind, f"{where}.type")
    known = next((known for start, known in _CLIENTS.items() if kind.startswith(start)), None)
    if known is None or "toolset" in kind:
        return None
    description, schema = known
    size = [tool.get("display_width_px"), tool.get("display_height_px")]
    if all(size):
        description += f" The screen has {size[0]} x {size[1]} pixels."
    return load_function(
        {"name": tool.get("name"), "description": description, "parameters": schema}, where
    )


def load_tool_choice(choice: Json, tools: list[Tool]) -> ToolChoice:
    """Return the tool choice: none, auto, required, or the name of one tool."""
    if choice is None:
        return None
    # A string is OpenAI's form, which comes with OpenAI's form of tools.
    kind = choice if isinstance(choice, str) else as_object(choice, "tool_choice").get("type")
    match kind:
        case "auto" | "none":
            return str(kind)
        case "any" | "required":
            check_choice("required", tools, "tool_choice")
            return "required"
        case "tool" if isinstance(choice, dict):
            name = as_text(choice.get("name"), "tool_choice.name")
            check_defined({name}, tools, "tool_choice.name")
            return {"name": name}
        case _:
            raise_invalid("tool_choice.type", "must be 'auto', 'any', 'tool' or 'none'")
