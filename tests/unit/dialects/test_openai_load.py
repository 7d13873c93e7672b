"""OpenAI's requests to hub requests, and what is refused by name instead of failing."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.embeddings.schemas import load_embeddings
from ollama_proxy.dialects.openai.load import load_chat
from ollama_proxy.errors import BadRequest
from ollama_proxy.upstreams.ollama_codec import encode_chat

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": MESSAGES, **fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": "x"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"tool_choice": {"type": "function", "function": "x"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"reasoning": {"effort": ["high"]}}, "reasoning.effort"),
        ({"max_tokens": 1e30}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"n": True}, "n"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": 5}}]},
            "tools[0].function.description",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": "x"}]}]},
            "messages[0].content[0].input_audio",
        ),
        ({"messages": [{"role": "tool", "tool_call_id": 5, "content": "r"}]}, "messages[0].tool_call_id"),
    ],
)
def test_what_can_not_be_read_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        load_chat(chat(**fields))
    assert refused.value.param == param


def test_whole_numbers_may_be_written_with_a_point() -> None:
    asked = load_chat(chat(max_tokens=5.0, logprobs=True, top_logprobs=3.0))
    assert repr(asked.options["num_predict"]) == "5" and repr(asked.top_logprobs) == "3"
    assert repr(load_embeddings({"model": "m", "input": "x", "dimensions": 256.0}).dimensions) == "256"


def test_a_named_tool_is_the_only_one_that_the_model_sees() -> None:
    asked = load_chat(chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}}))
    assert [tool["function"]["name"] for tool in encode_chat(asked)["tools"]] == ["g"]


def test_no_tool_is_shown_when_none_may_be_called() -> None:
    assert "tools" not in encode_chat(load_chat(chat(tools=TOOLS, tool_choice="none")))
