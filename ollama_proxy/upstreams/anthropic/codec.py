"""Hub requests to the bodies of the Messages API. Pure: values in, values out.

What a model has no field for is put into its prompt, or left out; either way it is listed as
`unsaid`. Its Traits list the fields that it has; a server that lists none gets the fields that
every server of this API accepts.

Written against the types of Anthropic's own client of November 2026, and for servers that
speak the API of 2023-06-01.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, Json, ModelRequest, Tool
from ollama_proxy.upstreams.anthropic.messages import Thoughts, encode_messages
from ollama_proxy.upstreams.anthropic.models import Traits
from ollama_proxy.upstreams.call import pace
from ollama_proxy.wire import encode_request

#: Tokens of an answer if neither the client, nor the operator, nor the provider gives a limit. The
#: one default that is sent: the API refuses a request without `max_tokens`, and every model of
#: today accepts this one.
DEFAULT_TOKENS = 8192

#: Budgets for thinking, in tokens, by level; the API takes none below the least.
BUDGETS = {"low": 2048, "medium": 8192, "high": 16384, "max": 32768}
LEAST_BUDGET = 1024

#: Instructions for a model that has no field for the format of its answer.
AS_JSON = "Answer with nothing but one JSON value: no other text, and no code fence."
AS_SCHEMA = AS_JSON + " It must match this JSON Schema: "

#: Passthrough fields of the API itself, and their values.
_CARRIED: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "cache_control": (dict, ()),
    "inference_geo": (str, ()),
    "service_tier": (str, ("auto", "standard_only")),
}

#: What the API refuses as a user's id: an e-mail address, a telephone number.
_PERSONAL = re.compile(r".*@.*|\+?[\d\s().-]{7,}", re.DOTALL)
_MOST_USER_CHARS = 256

#: The names of `tool_choice` in the API.
_CHOICES = {"none": "none", "required": "any", "auto": "auto"}

#: Options that can't be combined with thinking, and that some models refuse.
_SAMPLING = ("temperature", "top_k", "top_p")

#: Limits of a JSON Schema that the API refuses.
_REFUSED = frozenset(
    (
        "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems "
        "uniqueItems contains minContains maxContains minProperties maxProperties "
        "patternProperties propertyNames"
    ).split()
)

#: Its keywords with schemas inside: in a mapping, in a list, or alone.
_MAPPINGS, _LISTS, _SINGLE = (
    ("properties", "$defs", "definitions"),
    ("anyOf", "oneOf", "allOf", "prefixItems"),
    "items",
)


def encode_chat(request: ChatRequest, traits: Traits, thoughts: Thoughts) -> dict[str, Json]:
    """The body of `POST /v1/messages`; raises BadRequest for what the model can't do."""
    parameters = encode_parameters(request, traits, thoughts)
    system, turns = encode_messages(request.messages, thoughts)
    prompt = "\n\n".join(text for text in (system, parameters.instruction) if text)
    body = {"model": request.model, "messages": turns, "stream": request.stream}
    return body | ({"system": prompt} if prompt else {}) | parameters.fields


@dataclass(slots=True)
class Parameters:
    """Fields of a request, and what does not fit into them."""

    fields: dict[str, Json] = field(default_factory=dict)
    #: Appended to the system prompt.
    instruction: str = ""
    #: Hub fields that the model has no field for.
    unsaid: list[str] = field(default_factory=list)

    def add(self, **fields: Json) -> None:
        """Adds the fields that are not None."""
        self.fields |= {name: value for name, value in fields.items() if value is not None}


def encode_parameters(request: ChatRequest, traits: Traits, thoughts: Thoughts) -> Parameters:
    """All of a request but its model, messages and `stream`. `thoughts`: the signed thinking that
    is known. Raises BadRequest if the model does not support the request."""
    asked = Parameters()
    _add_tools(asked, request, traits)
    _add_thinking(asked, request, traits, thoughts)
    _add_sampling(asked, request, traits)
    if isinstance(request.format, str) and request.format:
        asked.instruction = AS_JSON
        asked.unsaid.append("format")
    elif request.format:
        written = encode_request(request.format)  # also limits its depth
        if traits.has_schemas:
            form = {"type": "json_schema", "schema": close_objects(request.format)}
            asked.fields["output_config"] = asked.fields.get("output_config", {}) | {"format": form}
        else:
            asked.instruction = AS_SCHEMA + written.decode()
            asked.unsaid.append("format")
    if request.user and (len(request.user) > _MOST_USER_CHARS or _PERSONAL.fullmatch(request.user)):
        asked.unsaid.append("user")
    elif request.user:
        asked.fields["metadata"] = {"user_id": request.user}
    asked.add(**select_passthrough(request))
    return asked


def select_passthrough(request: ModelRequest) -> dict[str, Json]:
    """The passthrough fields of this API."""
    fields: dict[str, Json] = {}
    for name, (kind, words) in _CARRIED.items():
        value = request.passthrough_fields.get(name)
        if isinstance(value, kind) and (not words or value in words):
            fields[name] = value
    return fields


# Tools.


def _add_tools(asked: Parameters, request: ChatRequest, traits: Traits) -> None:
    if not request.tools:
        # A history with calls needs their tools, though they are not on offer any more.
        called = sorted({call.name for message in request.messages for call in message.tool_calls})
        if called:
            asked.add(
                tools=[_tool(Tool(name, None, None), traits) for name in called],
                tool_choice={"type": "none"},
            )
        return
    wanted, choice = request.tool_choice, dict[str, Json]()
    if isinstance(wanted, Mapping):
        choice = {"type": "tool", "name": wanted["name"]}
    elif wanted in _CHOICES:
        choice = {"type": _CHOICES[wanted]}
    if request.parallel_tool_calls is False and wanted != "none":
        choice = {"type": "auto"} | choice | {"disable_parallel_tool_use": True}
    asked.add(
        tools=[_tool(tool, traits) for tool in pace(request.tools)], tool_choice=choice or None
    )


def _tool(tool: Tool, traits: Traits) -> dict[str, Json]:
    schema = dict(tool.parameters or {})
    described = {} if tool.description is None else {"description": tool.description}
    strict = {"strict": True} if tool.strict and traits.has_schemas else {}
    return {"name": tool.name, **described, "input_schema": {"type": "object"} | schema, **strict}


# Thinking, and the length of the answer that it is part of.


def _add_thinking(
    asked: Parameters, request: ChatRequest, traits: Traits, thoughts: Thoughts
) -> None:
    # The most tokens of the answer, by the client or the operator; None: no limit given.
    said = request.options.get("num_predict")
    limit = min(said, traits.most_tokens or said) if isinstance(said, int) and said > 0 else None
    if request.think and not _may_think(request, traits, limit, thoughts):
        asked.unsaid.append("think")
        request = replace(request, think=False)
    if not request.think or traits.is_adaptive:
        _add_effort(asked, request, traits, limit)
        return
    # At most half of an answer with a limit is for thinking; without one, it comes on top.
    budget = BUDGETS.get(str(request.think), BUDGETS["medium"])
    limit = limit or traits.most_tokens
    if limit is None:
        limit = DEFAULT_TOKENS + budget
    else:
        budget = max(LEAST_BUDGET, min(budget, limit // 2))
    # Servers that do not list the traits of their models may not know `display` either.
    display = _display(request) if traits.lists_thinking else {}
    asked.add(max_tokens=limit, thinking={"type": "enabled", "budget_tokens": budget} | display)


def _may_think(request: ChatRequest, traits: Traits, limit: int | None, thoughts: Thoughts) -> bool:
    """Whether the model may think before this answer; raises BadRequest if it never can."""
    if traits.capabilities is not None and "thinking" not in traits.capabilities:
        raise BadRequest(f'"{request.model}" does not support thinking', param="think")
    if request.tools and request.tool_choice not in (None, "auto", "none"):
        return False  # a model that must call a tool can't think first
    if traits.is_adaptive:
        return True
    # Between calls and their results, more thinking needs the signed thinking
    # that led to the calls.
    last = next(
        (message for message in reversed(request.messages) if message.role == "assistant"), None
    )
    can_continue = last is None or not last.tool_calls or bool(thoughts.of(last.tool_calls[0].id))
    return can_continue and (limit is None or limit > LEAST_BUDGET)


def _add_effort(asked: Parameters, request: ChatRequest, traits: Traits, limit: int | None) -> None:
    """The switch and the level for a model that decides itself how long it thinks,
    or that does not think."""
    asked.add(max_tokens=limit or traits.most_tokens or DEFAULT_TOKENS)
    if request.think:
        asked.add(thinking={"type": "adaptive"} | _display(request))
    elif request.think is False and traits.can_stop_thinking:
        asked.add(thinking={"type": "disabled"})
    if isinstance(request.think, str) and traits.efforts:
        asked.add(
            output_config={"effort": request.think if request.think in traits.efforts else "high"}
        )


def _display(request: ChatRequest) -> dict[str, Json]:
    return {"display": "omitted" if request.exclude_reasoning else "summarized"}


# Sampling.


def _add_sampling(asked: Parameters, request: ChatRequest, traits: Traits) -> None:
    given = {
        name: request.options[name] for name in _SAMPLING if request.options.get(name) is not None
    }
    thinks = asked.fields.get("thinking", {}).get("type") in ("adaptive", "enabled")
    if thinks or traits.decides_sampling:
        asked.unsaid += given
    else:
        if "temperature" in given and given.pop("top_p", None) is not None:
            asked.unsaid.append("top_p")  # newer models refuse both together
        if isinstance(given.get("temperature"), int | float):
            given["temperature"] = min(given["temperature"], 1.0)  # Ollama allows higher values
        asked.add(**given)
    # The API refuses stop sequences of white space.
    stop = request.options.get("stop")
    words = [stop] if isinstance(stop, str) else list(stop or ())
    seen = [word for word in words if str(word).strip()]
    if len(seen) < len(words):
        asked.unsaid.append("stop")
    asked.add(stop_sequences=seen or None)


# Schemas.


def close_objects(schema: Json) -> Json:
    """The schema with every object closed. Limits that the API refuses go into the description for
    the model, as in Anthropic's own client."""
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Json] = {}
    limits: dict[str, Json] = {}
    for name, value in schema.items():
        if name in _REFUSED or (name == "minItems" and value not in (0, 1)):
            limits[name] = value
        elif name == "oneOf" and "anyOf" not in schema:
            kept["anyOf"] = _close_inside(name, value)
        else:
            kept[name] = _close_inside(name, value)
    if schema.get("type") == "object" or "properties" in schema:
        kept["additionalProperties"] = False
    if limits:
        said = [kept["description"]] if kept.get("description") else []
        kept["description"] = "\n\n".join([*map(str, said), orjson.dumps(limits).decode()])
    return kept


def _close_inside(name: str, value: Json) -> Json:
    if name in _MAPPINGS and isinstance(value, dict):
        return {key: close_objects(inner) for key, inner in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [close_objects(inner) for inner in value]
    return close_objects(value) if name == _SINGLE else value
