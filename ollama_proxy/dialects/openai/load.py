"""Load OpenAI's requests as hub requests. Absent parameters stay absent, so the
model's own defaults apply."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.openai.messages import load_messages
from ollama_proxy.dialects.openai.render import CompletionShape
from ollama_proxy.dialects.openai.schemas import ChatSchema, CompletionSchema
from ollama_proxy.dialects.openai.tools import (
    is_legacy,
    list_custom_tools,
    list_hosted_tools,
    load_tools,
)
from ollama_proxy.dialects.schema_fields import (
    as_object,
    check_fields,
    is_texts,
    load_model_name,
    passthrough_fields,
    raise_invalid,
)
from ollama_proxy.hub import ChatRequest, GenerateRequest, Json

CHAT = ChatSchema()
COMPLETION = CompletionSchema()

#: OpenAI's parameters as Ollama's options. A later one wins, so `max_completion_tokens`
#: overrides `max_tokens`.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}

#: Choices for one prompt, and for all prompts of one request: each is a call to the upstream.
MAX_CHOICES, MAX_ANSWERS = 16, 64


def load_chat(data: dict[str, Json]) -> ChatRequest:
    """Load the body of POST /v1/chat/completions; raises BadRequest that names the field."""
    check_fields(CHAT, data)
    tools, tool_choice = load_tools(data)
    response_format = data.get("response_format") or {}
    # Three names are in use for leaving out the thinking; None if no field says so.
    exclude = (data.get("reasoning") or {}).get("exclude")
    if data.get("exclude_reasoning") is not None:
        exclude = data["exclude_reasoning"]
    elif exclude is None and data.get("include_reasoning") is not None:
        exclude = not data["include_reasoning"]
    if exclude is not None and not isinstance(exclude, bool):
        raise_invalid("reasoning.exclude", "must be a boolean")
    return ChatRequest(
        model=load_model_name(data),
        messages=load_messages(data.get("messages")),
        stream=bool(data.get("stream")),
        n=load_count(data.get("n"), "n"),
        tools=tools,
        tool_choice=tool_choice,
        # The older form has only one call.
        parallel_tool_calls=False if is_legacy(data) else data.get("parallel_tool_calls"),
        format=load_format(response_format, data.get("format")),
        think=content_parts.load_reasoning(data),
        options=load_options(data),
        logprobs=data.get("logprobs") or None,
        top_logprobs=content_parts.load_top_logprobs(data.get("top_logprobs")),
        user=data.get("user"),
        # Upstreams other than Ollama also need the schema's name and whether it is strict.
        passthrough_fields=passthrough_fields(CHAT, data)
        | (
            {"response_format": response_format}
            if response_format.get("type") == "json_schema"
            else {}
        ),
        ignored=list_hosted_tools(data),
        approximated=("tools",) if any(list_custom_tools(data).values()) else (),
        **content_parts.load_extensions(data) | {"exclude_reasoning": exclude},
    )


def load_completion(data: dict[str, Json]) -> tuple[GenerateRequest, CompletionShape]:
    """Load the body of POST /v1/completions, as a request and the shape of its answer; raises
    BadRequest that names the field."""
    check_fields(COMPLETION, data)
    prompts, n = _load_prompts(data.get("prompt")), load_count(data.get("n"), "n")
    best_of = n if data.get("best_of") is None else load_count(data["best_of"], "best_of")
    logprobs = data.get("logprobs")
    shape = CompletionShape(prompts, n, best_of, bool(data.get("echo")), logprobs is not None)
    if best_of < n:
        raise_invalid("best_of", f"must be at least n, which is {n}")
    if best_of > n and data.get("stream"):
        raise_invalid("best_of", "must be equal to n if stream is true")
    if shape.echo and shape.logprobs:
        raise_invalid(
            "echo",
            "can't be combined with logprobs: log probabilities of the prompt are not available",
        )
    if len(prompts) * best_of > MAX_ANSWERS:
        raise_invalid(
            "prompt",
            f"asks for {len(prompts) * best_of} completions in total; the limit is {MAX_ANSWERS}",
        )
    request = GenerateRequest(
        model=load_model_name(data),
        prompt=prompts[0],
        prompts=prompts,
        n=max(n, best_of),
        suffix=data.get("suffix"),
        stream=bool(data.get("stream")),
        # Completions have no field for thinking, which would use up a short limit.
        think_default=False,
        think=content_parts.load_think(data.get("think")),
        options=load_options(data),
        # The best answers are chosen by them.
        logprobs=True if shape.logprobs or best_of > n else None,
        top_logprobs=content_parts.load_top_logprobs(logprobs, "logprobs"),
        user=data.get("user"),
        passthrough_fields=passthrough_fields(COMPLETION, data),
        **content_parts.load_extensions(data),
    )
    return request, shape


def _load_prompts(prompt: Json) -> list[str]:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if any(type(each) in (int, list) for each in prompts):
        raise_invalid("prompt", "token IDs are not supported; send the prompt as a string")
    if not prompts or not is_texts(prompts):
        raise_invalid("prompt", "must be a string or an array of strings")
    # Ollama would only load the model for an empty prompt.
    return prompts if all(prompts) else raise_invalid("prompt", "must not be empty")


def load_count(value: Json, param: str) -> int:
    """Return the number of choices for one prompt, 1 if absent; raises BadRequest above 16."""
    if value is not None and not 1 <= value <= MAX_CHOICES:
        raise_invalid(param, f"must be between 1 and {MAX_CHOICES}")
    return int(value or 1)


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return Ollama's options: the extension `options`, overridden by OpenAI's own fields."""
    options = content_parts.load_options(data)
    for name, option in _OPTIONS.items():
        if data.get(name) is not None:
            options[option] = int(data[name]) if option == "num_predict" else data[name]
    return options


def load_format(
    response_format: Json, format_field: Json = None
) -> str | Mapping[str, Json] | None:
    """Return Ollama's `format` for OpenAI's `response_format`; without it, that
    of the field `format`."""
    if not response_format:
        return content_parts.load_format(format_field)
    match response_format.get("type"):
        case "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            json_schema = as_object(
                response_format.get("json_schema"), "response_format.json_schema"
            )
            return as_object(json_schema.get("schema"), "response_format.json_schema.schema")
        case _:
            raise_invalid("response_format.type", "must be 'text', 'json_object' or 'json_schema'")
