"""Load the tools of a request under flat names, and keep for each the form in which its
calls return to the client.

Models know only functions: tools in a namespace get a joined name, custom tools and the client's
search for tools become functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ollama_proxy.dialects.content_parts import TOOL_NAME, load_function
from ollama_proxy.dialects.schema_fields import as_array, as_object, as_text, raise_invalid, text_in
from ollama_proxy.dialects.tools import (
    check_choice,
    has_grammar,
    load_allowed_tools,
    load_custom_tool,
    without_hosted,
)
from ollama_proxy.hub import Json, Tool, ToolChoice
from ollama_proxy.upstreams import pace

FUNCTION, CUSTOM, TOOL_SEARCH = "function", "custom", "tool_search"

#: Longest joined name. Some providers refuse more than 64 characters; the rest is for what
#: makes names distinct.
MAX_JOINED_CHARS = 60

_WORDS = (None, "none", "auto", "required")


@dataclass(slots=True, frozen=True)
class ToolForm:
    """A tool as the client knows it. The kind is one of the three above."""

    kind: str
    name: str
    namespace: str | None = None


def is_offered(tool: Mapping[str, Json]) -> bool:
    """Whether the model gets a tool of `tools`; the others only the vendor's servers could run."""
    if tool["type"] == TOOL_SEARCH:
        return tool.get("execution") == "client"
    return tool["type"] in (FUNCTION, CUSTOM, "namespace")


@dataclass(slots=True)
class Toolbox:
    """The tools of a request, from its `tools` and from the items of its input."""

    #: The tools, with the schemas of functions unchanged, and the form of
    #: each, by their flat names.
    tools: dict[str, Tool] = field(default_factory=dict)
    forms: dict[str, ToolForm] = field(default_factory=dict)
    _names: dict[ToolForm, str] = field(default_factory=dict)
    #: The types of tools that only the vendor's servers can run: they are left out.
    hosted: list[str] = field(default_factory=list)
    #: `tools` if one of them has a grammar, which can't be enforced.
    approximated: Sequence[str] = ()

    def add(self, tools: Json, where: str, namespace: str | None = None) -> list[Tool]:
        """Add tools, and return those that the model gets; a tool that was defined before is
        replaced. Raises BadRequest that names an invalid one."""
        added: list[Tool] = []
        for index, tool in enumerate(pace(as_array(tools, where))):
            place = f"{where}[{index}]"
            kind = as_text(tool.get("type") if isinstance(tool, dict) else None, f"{place}.type")
            if kind == "namespace" and namespace is None:
                name = str(tool.get("name") or "")
                if not TOOL_NAME.fullmatch(name):
                    raise_invalid(
                        f"{place}.name", f"is required and must match ^{TOOL_NAME.pattern}$"
                    )
                added += self.add(tool.get("tools"), f"{place}.tools", name)
            elif loaded := self._load(kind, tool, place):
                added.append(self._name(loaded, ToolForm(kind, loaded.name, namespace)))
        return added

    def _load(self, kind: str, tool: Mapping[str, Json], where: str) -> Tool | None:
        """Load one tool; None if only the vendor's servers can run it."""
        match kind:
            case "function":
                if tool.get("strict") is not None and not isinstance(tool["strict"], bool):
                    raise_invalid(f"{where}.strict", "must be a boolean")
                return load_function(tool, where)
            case "custom":
                loaded = load_custom_tool(tool, where)
                if has_grammar(tool):
                    self.approximated = ("tools",)
                return loaded
            case "tool_search" if is_offered(tool):
                return load_function({**tool, "name": TOOL_SEARCH}, where)
        if kind not in self.hosted:
            self.hosted.append(kind)
        return None

    def _name(self, tool: Tool, form: ToolForm) -> Tool:
        """Keep a tool under the flat name of its form."""
        name = self.flat_name(form)
        while self.forms.get(name, form) != form:
            name += "_"
        self.forms[name], self._names[form] = form, name
        self.tools[name] = tool = replace(tool, name=name)
        return tool

    def flat_name(self, form: ToolForm) -> str:
        """Return the name that the model knows a tool by, also for a tool that the request does not
        define. A name in a namespace is joined, in the same way in every turn. If that is too long,
        it has a digest in the middle: the model needs the end, which has the name of the tool."""
        if known := self._names.get(form):
            return known
        if form.namespace is None:
            return form.name
        joined = f"{form.namespace}__{form.name}"
        if len(joined) <= MAX_JOINED_CHARS:
            return joined
        digest = hashlib.sha256(joined.encode()).hexdigest()[:8]
        return f"{joined[:16]}_{digest}_{joined[-34:]}"

    def find(self, tool: Json, where: str) -> str:
        """Return the flat name of a tool that a tool choice names; raises BadRequest if the
        request does not define it."""
        kind = as_object(tool, where).get("type")
        if kind in self.hosted:
            raise_invalid(f"{where}.type", f"this gateway can't run '{kind[:60]}'")
        if kind not in (FUNCTION, CUSTOM):
            raise_invalid(f"{where}.type", "must be 'function', 'custom' or 'allowed_tools'")
        name = as_text(tool.get("name"), f"{where}.name")
        namespace = text_in(tool, "namespace", where) or None
        flat_name = self.flat_name(form := ToolForm(kind, name, namespace))
        if self.forms.get(flat_name) != form:
            raise_invalid(f"{where}.name", f"this request defines no tool '{name[:80]}'")
        return flat_name


def load_tool_choice(choice: Json, toolbox: Toolbox) -> tuple[list[Tool], ToolChoice]:
    """Return the tools that may be called, and the tool choice: none, auto,
    required, or one tool."""
    tools = [*toolbox.tools.values()]
    if choice is None or isinstance(choice, str):
        if choice not in _WORDS:
            raise_invalid("tool_choice", "must be 'none', 'auto' or 'required'")
        check_choice(choice, tools, "tool_choice")
        return tools, choice
    if as_object(choice, "tool_choice").get("type") != "allowed_tools":
        return tools, {"name": toolbox.find(choice, "tool_choice")}
    entries = choice.get("tools")
    allowed, mode = load_allowed_tools(
        without_hosted(choice, toolbox.hosted), tools, "tool_choice", toolbox.find
    )
    if not allowed and (mode == "required" or not entries):
        raise_invalid("tool_choice.tools", "must be an array of functions")
    return allowed, mode
