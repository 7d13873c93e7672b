"""Load OpenAI's requests for responses as hub requests. Absent parameters stay absent, so the
model's own defaults apply."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.responses.input_items import is_compaction, load_input
from ollama_proxy.dialects.responses.output_items import ResponseShape
from ollama_proxy.dialects.responses.schemas import ENCRYPTED_REASONING, LOGPROBS, ResponseSchema
from ollama_proxy.dialects.responses.tools import Toolbox, load_tool_choice
from ollama_proxy.dialects.schema_fields import (
    as_object,
    as_text,
    check_fields,
    load_model_name,
    passthrough_fields,
    raise_invalid,
)
from ollama_proxy.hub import ChatRequest, Json, Message

RESPONSE = ResponseSchema()

_OPTIONS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")

#: Values of carried fields that ask for the default.
_HARMLESS: Mapping[str, tuple[Json, ...]] = {"store": (False,), "service_tier": ("auto", "default")}


def load_response(data: dict[str, Json]) -> tuple[ChatRequest, ResponseShape]:
    """Load the body of POST /v1/responses, as a request and the shape of its answer; raises
    BadRequest that names the field."""
    check_fields(RESPONSE, data)
    text, instructions = data.get("text") or {}, data.get("instructions")
    toolbox = Toolbox()
    toolbox.add(data.get("tools") or [], "tools")
    # Some items define tools, too.
    messages = load_input(data.get("input"), toolbox)
    # A summary needs no tools.
    choice = "none" if is_compaction(data["input"]) else data.get("tool_choice")
    tools, tool_choice = load_tool_choice(choice, toolbox)
    included = data.get("include") or ()
    top_logprobs = content_parts.load_top_logprobs(data.get("top_logprobs"))
    request = ChatRequest(
        model=load_model_name(data),
        messages=([Message("system", instructions)] if instructions else []) + messages,
        stream=bool(data.get("stream")),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=data.get("parallel_tool_calls"),
        format=load_format(text.get("format"), data.get("format")),
        think=content_parts.load_reasoning(data),
        options=load_options(data),
        logprobs=bool(top_logprobs or LOGPROBS in included) or None,
        top_logprobs=top_logprobs,
        user=data.get("user"),
        passthrough_fields=_passthrough_fields(data, text),
        ignored=toolbox.hosted,
        approximated=toolbox.approximated,
        **content_parts.load_extensions(data)
        | ({"truncate": True} if data.get("truncation") == "auto" else {}),
    )
    summarized = _load_summarized(data.get("reasoning") or {})
    return request, ResponseShape(
        toolbox.forms, sealed=ENCRYPTED_REASONING in included, summarized=summarized
    )


def _load_summarized(reasoning: Mapping[str, Json]) -> bool:
    """Whether the request asks for a summary of the thinking, by either name."""
    for name in ("summary", "generate_summary"):
        if reasoning.get(name) not in (None, "auto", "concise", "detailed"):
            raise_invalid(f"reasoning.{name}", "must be 'auto', 'concise' or 'detailed'")
    return bool(reasoning.get("summary") or reasoning.get("generate_summary"))


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return Ollama's options: the extension `options`, overridden by OpenAI's own fields."""
    options = content_parts.load_options(data)
    options |= {name: data[name] for name in _OPTIONS if data.get(name) is not None}
    limit = data.get("max_output_tokens")
    if limit is not None:
        # Ollama would treat a value below 1 as no limit.
        options["num_predict"] = (
            int(limit) if limit >= 1 else raise_invalid("max_output_tokens", "must be at least 1")
        )
    return options


def load_format(wanted: Json, format_field: Json = None) -> str | Mapping[str, Json] | None:
    """Return Ollama's `format` for `text.format`, the schema unchanged; without it, that
    of the field `format`."""
    if not wanted:
        return content_parts.load_format(format_field)
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


def _passthrough_fields(data: dict[str, Json], text: Mapping[str, Json]) -> dict[str, Json]:
    """Return the passthrough fields under the names that they have in chat
    completions, for other upstreams."""
    found = {
        name: value
        for name, value in passthrough_fields(RESPONSE, data).items()
        if value not in _HARMLESS.get(name, ())
    }
    verbosity = text.get("verbosity")
    if verbosity not in (None, "low", "medium", "high"):
        raise_invalid("text.verbosity", "must be 'low', 'medium' or 'high'")
    return found | ({"verbosity": verbosity} if verbosity else {})
