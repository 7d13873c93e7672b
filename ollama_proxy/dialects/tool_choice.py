"""Load the parts of the tool choice that chat completions and responses have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ollama_proxy.dialects.schema_fields import raise_invalid
from ollama_proxy.hub import Json, Tool, ToolChoice


def load_allowed_tools(
    allowed: Mapping[str, Json], tools: Sequence[Tool], where: str, load_name: Callable[[Json, str], str]
) -> tuple[list[Tool], str]:
    """Return the tools that `allowed_tools` leaves, and its mode, auto or required; raises BadRequest for a tool that
    the request does not define. `load_name` returns the name of one of its entries."""
    mode, entries = allowed.get("mode"), allowed.get("tools")
    if mode not in ("auto", "required"):
        raise_invalid(f"{where}.mode", "must be 'auto' or 'required'")
    if not isinstance(entries, list):
        raise_invalid(f"{where}.tools", "must be an array of functions")
    names = {load_name(entry, f"{where}.tools[{index}]") for index, entry in enumerate(entries)}
    check_defined(names, tools, f"{where}.tools")
    return [tool for tool in tools if tool.name in names], str(mode)


def without_hosted(allowed: Mapping[str, Json], hosted: Sequence[str]) -> Mapping[str, Json]:
    """Return `allowed_tools` without tools of the types in `hosted`, which are left out of the request anyway."""
    entries = allowed.get("tools")
    if not hosted or not isinstance(entries, list):
        return allowed
    kept = [entry for entry in entries if not isinstance(entry, dict) or entry.get("type") not in hosted]
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
