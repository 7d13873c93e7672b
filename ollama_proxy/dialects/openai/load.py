"""OpenAI's requests to hub requests. Absent parameters stay absent: the model's own defaults rule."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ollama_proxy.dialects.openai.messages import load_messages
from ollama_proxy.dialects.openai.schemas import (
    ChatSchema,
    CompletionSchema,
    as_object,
    as_text,
    bad,
    carried,
    check_fields,
)
from ollama_proxy.hub import ChatRequest, GenerateRequest, Json, Tool

CHAT = ChatSchema()
COMPLETION = CompletionSchema()

#: OpenAI's name to Ollama's option. The later one wins, so `max_completion_tokens` beats `max_tokens`.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "num_ctx": "num_ctx",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}

_WHOLE = ("seed", "num_ctx", "top_k", "num_predict")

#: Efforts of all vendors to Ollama's levels.
_EFFORTS: dict[str, bool | str | None] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}

_LEVELS = ("low", "medium", "high", "max")


def load_chat(data: dict[str, Json]) -> ChatRequest:
    """The body of POST /v1/chat/completions; raises BadRequest that names the field."""
    check_fields(CHAT, data)
    request = ChatRequest(
        model=_model(data),
        messages=load_messages(data.get("messages")),
        stream=bool(data.get("stream")),
        tools=load_tools(data.get("tools") or []),
        tool_choice=load_tool_choice(data.get("tool_choice")),
        parallel_tool_calls=data.get("parallel_tool_calls"),
        format=load_format(data.get("response_format")),
        think=load_think(data),
        options=load_options(data),
        keep_alive=data.get("keep_alive"),
        logprobs=data.get("logprobs") or None,
        top_logprobs=_top_logprobs(data.get("top_logprobs")),
        user=data.get("user"),
        carried=carried(CHAT, data),
    )
    return request


def load_completion(data: dict[str, Json]) -> GenerateRequest:
    """The body of POST /v1/completions; raises BadRequest that names the field."""
    check_fields(COMPLETION, data)
    logprobs = data.get("logprobs")
    return GenerateRequest(
        model=_model(data),
        prompt=_prompt(data.get("prompt")),
        suffix=data.get("suffix"),
        stream=bool(data.get("stream")),
        # The answer has no place for thoughts, and a short limit would be spent on them.
        think=False,
        options=load_options(data),
        keep_alive=data.get("keep_alive"),
        logprobs=None if logprobs is None else True,
        top_logprobs=_top_logprobs(logprobs, "logprobs"),
        user=data.get("user"),
        carried=carried(COMPLETION, data),
    )


def _model(data: Mapping[str, Json]) -> str:
    return str(data.get("model") or "") or bad("model", "is required")


def _prompt(prompt: Json) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        bad("prompt", "must be one text; lists of texts and token ids are not supported")
    # Ollama would take an empty prompt for an order to load the model.
    return prompt or bad("prompt", "must not be empty")


def _top_logprobs(value: Json, param: str = "top_logprobs") -> int | None:
    if value is not None and not 0 <= value <= 20:
        bad(param, "must be between 0 and 20")
    return int(value or 0) or None


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """Ollama's options: the extension `options` first, OpenAI's own fields over it."""
    options = dict(data.get("options") or {})
    for name, option in _OPTIONS.items():
        if data.get(name) is not None:
            options[option] = int(data[name]) if option in _WHOLE else data[name]
    if stop := data.get("stop"):
        options["stop"] = [stop] if isinstance(stop, str) else stop
    return options


def load_format(response_format: Json) -> str | Mapping[str, Json] | None:
    """Ollama's `format` for OpenAI's `response_format`."""
    if not response_format:
        return None
    match response_format.get("type"):
        case "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            named = as_object(response_format.get("json_schema"), "response_format.json_schema")
            return as_object(named.get("schema"), "response_format.json_schema.schema")
        case _:
            bad("response_format.type", "must be text, json_object or json_schema")


def load_think(data: Mapping[str, Json]) -> bool | str | None:
    """Ollama's `think`: the extension of that name, else `reasoning.effort`, else `reasoning_effort`."""
    think = data.get("think")
    if isinstance(think, bool) or (isinstance(think, str) and think in _LEVELS):
        return think
    if think is not None:
        bad("think", 'must be true, false, "low", "medium", "high" or "max"')
    reasoning = data.get("reasoning")
    if reasoning is None:
        return _load_effort(data.get("reasoning_effort"), "reasoning_effort")
    if not reasoning.get("effort") and isinstance(reasoning.get("enabled"), bool):
        return bool(reasoning["enabled"])
    return _load_effort(reasoning.get("effort"), "reasoning.effort")


def _load_effort(effort: Json, param: str) -> bool | str | None:
    word = effort or ""
    if not isinstance(word, str) or word not in _EFFORTS:
        known = ", ".join(f'"{name}"' for name in _EFFORTS if name)
        bad(param, f'invalid reasoning value: "{str(word)[:20]}" (must be {known})')
    return _EFFORTS[word]


_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def load_tools(tools: list[Json]) -> list[Tool]:
    """The tools on offer; their schemas are not touched."""
    return [_load_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _load_tool(tool: Json, where: str) -> Tool:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        bad(f"{where}.type", "only tools of the type 'function' are supported")
    function = tool.get("function")
    if not isinstance(function, dict) or not _TOOL_NAME.fullmatch(str(function.get("name") or "")):
        bad(f"{where}.function.name", "is missing or has characters that names can't have")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        bad(f"{where}.function.parameters", "must be a JSON Schema object")
    description = function.get("description")
    if description is not None:
        as_text(description, f"{where}.function.description")
    return Tool(function["name"], description, parameters, function.get("strict"))


def load_tool_choice(choice: Json) -> str | Mapping[str, str] | None:
    """none, auto, required, or the one tool that is meant."""
    if choice is None or choice in ("none", "auto", "required"):
        return choice  # type: ignore[no-any-return]  # one of the three words
    function = as_object(as_object(choice, "tool_choice").get("function"), "tool_choice.function")
    return {"name": as_text(function.get("name"), "tool_choice.function.name")}
