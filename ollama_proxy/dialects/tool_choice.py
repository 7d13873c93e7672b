"""What a request says about calling its tools, as far as chat completions and responses say it alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ollama_proxy.dialects.schema_fields import raise_invalid
from ollama_proxy.hub import Json, Tool, ToolChoice


def load_allowed_tools(
    allowed: Mapping[str, Json], tools: Sequence[Tool], where: str, load_name: Callable[[Json, str], str]
) -> tuple[list[Tool], str]:
    """The tools that `allowed_tools` leaves, and its mode, auto or required; raises BadRequest for a tool that is not
    on offer. `load_name` reads the name of one of its entries."""
    mode, entries = allowed.get("mode"), allowed.get("tools")
    if mode not in ("auto", "required"):
        raise_invalid(f"{where}.mode", "must be 'auto' or 'required'")
    if not isinstance(entries, list):
        raise_invalid(f"{where}.tools", "must be an array of functions")
    names = {load_name(entry, f"{where}.tools[{index}]") for index, entry in enumerate(entries)}
    check_offered(names, tools, f"{where}.tools")
    return [tool for tool in tools if tool.name in names], str(mode)


def check_choice(choice: ToolChoice, tools: Sequence[Tool], param: str) -> None:
    """Raises BadRequest if a tool must be called that is not on offer."""
    if choice == "required" and not tools:
        raise_invalid(param, "this request defines no tools")
    if isinstance(choice, Mapping):
        check_offered({choice["name"]}, tools, param)


def check_offered(names: set[str], tools: Sequence[Tool], param: str) -> None:
    """Raises BadRequest for a name that no tool has."""
    if missing := names - {tool.name for tool in tools}:
        raise_invalid(param, f"this request defines no tool '{min(missing)[:80]}'")
