"""Load OpenAI's requests for responses as hub requests. Absent parameters stay absent, so the model's own defaults
apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.responses.input_items import load_input
from ollama_proxy.dialects.responses.schemas import LOGPROBS, ResponseSchema
from ollama_proxy.dialects.schema_fields import as_object, as_text, check_fields, passthrough_fields, raise_invalid
from ollama_proxy.dialects.tool_choice import check_choice, load_allowed_tools
from ollama_proxy.hub import ChatRequest, Json, Message, Tool, ToolChoice
from ollama_proxy.upstreams import pace

RESPONSE = ResponseSchema()

_OPTIONS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")

_WORDS = (None, "none", "auto", "required")

#: Values of carried fields that ask for the default.
_HARMLESS: Mapping[str, tuple[Json, ...]] = {"store": (False,), "service_tier": ("auto", "default")}


def load_response(data: dict[str, Json]) -> ChatRequest:
    """Load the body of POST /v1/responses; raises BadRequest that names the field."""
    check_fields(RESPONSE, data)
    _check_summary(data.get("reasoning") or {})
    text, instructions = data.get("text") or {}, data.get("instructions")
    tools, tool_choice = load_tool_choice(data.get("tool_choice"), load_tools(data.get("tools") or []))
    top_logprobs = content_parts.load_top_logprobs(data.get("top_logprobs"))
    return ChatRequest(
        model=str(data.get("model") or "") or raise_invalid("model", "is required"),
        messages=([Message("system", instructions)] if instructions else []) + load_input(data.get("input")),
        stream=bool(data.get("stream")),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=data.get("parallel_tool_calls"),
        format=load_format(text.get("format")),
        think=content_parts.load_reasoning(data),
        options=load_options(data),
        logprobs=bool(top_logprobs or LOGPROBS in (data.get("include") or ())) or None,
        top_logprobs=top_logprobs,
        user=data.get("user"),
        passthrough_fields=_passthrough_fields(data, text),
        **content_parts.load_extensions(data) | ({"truncate": True} if data.get("truncation") == "auto" else {}),
    )


def _check_summary(reasoning: Mapping[str, Json]) -> None:
    for name in ("summary", "generate_summary"):
        if reasoning.get(name) not in (None, "auto", "concise", "detailed"):
            raise_invalid(f"reasoning.{name}", "must be 'auto', 'concise' or 'detailed'")


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return Ollama's options: the extension `options`, overridden by OpenAI's own fields."""
    options = content_parts.load_options(data)
    options |= {name: data[name] for name in _OPTIONS if data.get(name) is not None}
    limit = data.get("max_output_tokens")
    if limit is not None:
        # Ollama would treat a value below 1 as no limit.
        options["num_predict"] = int(limit) if limit >= 1 else raise_invalid("max_output_tokens", "must be at least 1")
    return options


def load_format(wanted: Json) -> str | Mapping[str, Json] | None:
    """Return Ollama's `format` for `text.format`, with the schema unchanged."""
    if not wanted:
        return None
    match as_object(wanted, "text.format").get("type"):
        case "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            as_text(wanted.get("name"), "text.format.name")
            return as_object(wanted.get("schema"), "text.format.schema")
        case _:
            raise_invalid("text.format.type", "must be 'text', 'json_object' or 'json_schema'")


def load_tools(tools: Sequence[Json]) -> list[Tool]:
    """Load the functions, in the flat form of this API, with their schemas unchanged."""
    loaded: list[Tool] = []
    for index, tool in enumerate(pace(tools)):
        where, kind = f"tools[{index}]", tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise_invalid(
                f"{where}.type", f"must be 'function', not '{str(kind)[:40]}': no other type of tool is supported"
            )
        if tool.get("strict") is not None and not isinstance(tool["strict"], bool):
            raise_invalid(f"{where}.strict", "must be a boolean")
        loaded.append(content_parts.load_function(tool, where))
    return loaded


def load_tool_choice(choice: Json, tools: list[Tool]) -> tuple[list[Tool], ToolChoice]:
    """Return the tools that may be called, and the tool choice: none, auto, required, or one function."""
    defined = {tool.name for tool in tools}

    def load_name(function: Json, where: str) -> str:
        """Return the name of a function that the request defines."""
        if as_object(function, where).get("type") != "function":
            raise_invalid(f"{where}.type", "must be 'function'")
        name = as_text(function.get("name"), f"{where}.name")
        return (
            name if name in defined else raise_invalid(f"{where}.name", f"this request defines no tool '{name[:80]}'")
        )

    if choice is None or isinstance(choice, str):
        if choice not in _WORDS:
            raise_invalid("tool_choice", "must be 'none', 'auto' or 'required'")
        check_choice(choice, tools, "tool_choice")
        return tools, choice
    match as_object(choice, "tool_choice").get("type"):
        case "function":
            return tools, {"name": load_name(choice, "tool_choice")}
        case "allowed_tools":
            allowed, mode = load_allowed_tools(choice, tools, "tool_choice", load_name)
            return allowed or raise_invalid("tool_choice.tools", "must be an array of functions"), mode
        case _:
            raise_invalid("tool_choice.type", "must be 'function' or 'allowed_tools'")


def _passthrough_fields(data: dict[str, Json], text: Mapping[str, Json]) -> dict[str, Json]:
    """Return the passthrough fields under the names that they have in chat completions, for other upstreams."""
    found = {
        name: value
        for name, value in passthrough_fields(RESPONSE, data).items()
        if value not in _HARMLESS.get(name, ())
    }
    verbosity = text.get("verbosity")
    if verbosity not in (None, "low", "medium", "high"):
        raise_invalid("text.verbosity", "must be 'low', 'medium' or 'high'")
    return found | ({"verbosity": verbosity} if verbosity else {})
