"""The request fields that a response repeats, as OpenAI's and the Open Responses schemas require.

Both require numbers that a request may omit. The response then has the API's documented defaults,
although the model used its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.dialects.responses.tools import is_offered
from ollama_proxy.dialects.schema_fields import is_number
from ollama_proxy.hub import ChatRequest, Json

#: The fields that are repeated unchanged, with their values if the request omits them.
_REPEATED: Mapping[str, Json] = {
    "instructions": None,
    "metadata": {},
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "tool_choice": "auto",
}
_COUNTS = ("max_output_tokens", "max_tool_calls")
_TOOL_FIELDS = ("name", "description", "parameters", "strict")
_NUMBERS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}

#: Ollama's levels as both schemas name them; with True, the model chooses.
_EFFORTS = {
    None: None,
    True: None,
    False: "none",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "xhigh",
}


def render_echo(
    data: Mapping[str, Json], asked: ChatRequest, service_tier: str = ""
) -> dict[str, Json]:
    """Return the fields of a response object that repeat its request, and the
    tier that is used for it."""
    reasoning = data.get("reasoning") or {}
    summary = reasoning.get("summary") or reasoning.get("generate_summary")
    echo: dict[str, Json] = {
        "background": False,
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": _EFFORTS[asked.think], "summary": summary},
        "store": False,
        "text": _echo_text(data.get("text")),
        "tools": _echo_tools(data.get("tools")),
        "top_logprobs": asked.top_logprobs or 0,
        "truncation": "auto" if asked.truncate else "disabled",
    }
    repeated = {**data, "service_tier": service_tier}
    echo |= {name: repeated.get(name) or default for name, default in _REPEATED.items()}
    echo |= dict.fromkeys(_COUNTS) | {
        name: int(data[name]) for name in _COUNTS if data.get(name) is not None
    }
    echo |= _NUMBERS | {
        name: asked.options[name] for name in _NUMBERS if is_number(asked.options.get(name))
    }
    return echo | ({"user": asked.user} if asked.user else {})


def _echo_tools(tools: Json) -> list[dict[str, Json]]:
    """Repeat the tools that the model gets: of a function, every field that the schemas
    require, and no other."""
    return [
        tool
        if tool["type"] != "function"
        else {"type": "function"} | {name: tool.get(name) for name in _TOOL_FIELDS}
        for tool in tools or ()
        if is_offered(tool)
    ]


def _echo_text(text: Json) -> dict[str, Json]:
    text = text or {}
    chosen = text.get("format") or {"type": "text"}
    document: dict[str, Json] = {"format": {"type": chosen["type"]}}
    if chosen["type"] == "json_schema":
        document["format"] |= {
            "name": chosen["name"],
            "description": chosen.get("description") or "",
            "schema": chosen["schema"],
            "strict": bool(chosen.get("strict")),
        }
    if text.get("verbosity"):
        document["verbosity"] = text["verbosity"]
    return document
