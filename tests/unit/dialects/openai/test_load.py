"""OpenAI's requests to hub requests, and what is refused by name instead of failing."""

from __future__ import annotations

import time
from typing import Any

import pytest
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import completion_create_params as chat_params

from ollama_proxy.dialects.embeddings import load_embeddings
from ollama_proxy.dialects.openai.load import load_chat
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, Tool
from ollama_proxy.upstreams.ollama.codec import encode_chat
from tests.golden.fates import CHAT, COMPLETION, EMBEDDING, FIELDS
from tests.rig.tables import each_row

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": MESSAGES, **fields}


@each_row(
    ("fields", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": "x"}},
            "response_format.json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
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
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": "x"}]}
                ]
            },
            "messages[0].content[0].input_audio",
        ),
        (
            {"messages": [{"role": "tool", "tool_call_id": 5, "content": "r"}]},
            "messages[0].tool_call_id",
        ),
    ],
)
def test_what_can_not_be_read_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        load_chat(chat(**fields))
    assert refused.value.param == param


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_tool_has_no_name_for_here_is_carried(legacy: bool) -> None:
    function = {"name": "f", "description": "d", "strict": True, "cache": {"type": "x"}}
    fields: dict[str, Any] = (
        {"functions": [function]} if legacy else {"tools": [{"function": function}]}
    )
    [tool] = load_chat(chat(**fields)).tools
    assert tool == Tool("f", "d", None, True, {"cache": {"type": "x"}})


MANY = range(20_000)


def loaded_quickly(**fields: Any) -> ChatRequest:
    """What is asked, without more work than its length: the time of many pieces grows
    with their number alone."""
    began = time.process_time()
    asked = load_chat(chat(**fields))
    assert time.process_time() - began < 5.0
    return asked


def test_many_results_in_the_older_form_find_their_calls() -> None:
    calls = [
        {"role": "assistant", "function_call": {"name": f"f{one}", "arguments": "{}"}}
        for one in MANY
    ]
    results = [{"role": "function", "name": f"f{one}", "content": "r"} for one in MANY]
    messages = loaded_quickly(messages=calls + results).messages
    assert [message.tool_call_id for message in messages[len(calls) :]] == [
        f"call_function_{one}" for one in MANY
    ]


def test_result_in_the_older_form_belongs_to_the_last_call_of_its_function() -> None:
    call = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    result = {"role": "function", "name": "f", "content": "r"}
    messages = load_chat(
        chat(messages=[call, result, call, result, {**result, "name": "g"}])
    ).messages
    ids = [message.tool_call_id for message in messages if message.role == "tool"]
    assert ids == ["call_function_0", "call_function_1", None]


def test_many_allowed_tools() -> None:
    tools = [{"type": "function", "function": {"name": f"f{one}"}} for one in MANY]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools[1:]}}
    assert len(loaded_quickly(tools=tools, tool_choice=allowed).tools) == len(tools) - 1


def test_whole_numbers_may_be_written_with_a_point() -> None:
    asked = load_chat(chat(max_tokens=5.0, logprobs=True, top_logprobs=3.0))
    assert repr(asked.options["num_predict"]) == "5" and repr(asked.top_logprobs) == "3"
    assert (
        repr(load_embeddings({"model": "m", "input": "x", "dimensions": 256.0}).dimensions) == "256"
    )


def test_a_named_tool_is_the_only_one_that_the_model_sees() -> None:
    asked = load_chat(
        chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}})
    )
    assert [tool["function"]["name"] for tool in encode_chat(asked)["tools"]] == ["g"]


def test_no_tool_is_shown_when_none_may_be_called() -> None:
    assert "tools" not in encode_chat(load_chat(chat(tools=TOOLS, tool_choice="none")))


def chat_of(choice: Any, *messages: dict[str, str]) -> dict[str, Any]:
    return encode_chat(
        load_chat(chat(tools=TOOLS, tool_choice=choice, messages=[*messages, *MESSAGES]))
    )


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "g"}}])
def test_order_to_call_joins_what_the_user_said_last_where_there_is_no_system_message(
    choice: Any,
) -> None:
    before = {"role": "user", "content": "First."}, {"role": "assistant", "content": "Yes?"}
    first, second, last = chat_of(choice, *before)["messages"]
    assert [first, second] == list(before)
    assert last["role"] == "user" and last["content"].startswith(
        f"{MESSAGES[0]['content']}\n\nYou must"
    )


def test_order_to_call_joins_the_first_system_message_only() -> None:
    first, second = {"role": "system", "content": "One."}, {"role": "system", "content": "Two."}
    sent = chat_of("required", first, second)["messages"]
    assert sent[0]["content"].startswith("One.\n\nYou must")
    assert [message["content"] for message in sent[1:]] == ["Two.", "Hi"]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_nobody_is_ordered_to_call_without_need(choice: Any) -> None:
    assert chat_of(choice)["messages"] == MESSAGES


#: OpenAI's own client, its parameters by route.
PARAMETERS: dict[str, tuple[Any, ...]] = {
    CHAT: (
        chat_params.CompletionCreateParamsStreaming,
        chat_params.CompletionCreateParamsNonStreaming,
    ),
    COMPLETION: (
        completion_params.CompletionCreateParamsStreaming,
        completion_params.CompletionCreateParamsNonStreaming,
    ),
    EMBEDDING: (embedding_params.EmbeddingCreateParams,),
}


@pytest.mark.parametrize("path", PARAMETERS)
def test_every_parameter_of_the_official_client_has_a_fate(path: str) -> None:
    """A new version of the client shows here what has come: it goes into FIELDS, and a
    test demands its fate."""
    known = {
        name
        for kind in PARAMETERS[path]
        for name in kind.__required_keys__ | kind.__optional_keys__
    }
    assert known == set(FIELDS[path])


def test_schema_is_carried_with_its_name_for_those_who_ask_for_it() -> None:
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
    }
    asked = load_chat(chat(response_format=wanted))
    assert (asked.format, asked.passthrough_fields) == (
        {"type": "object"},
        {"response_format": wanted},
    )
    assert load_chat(chat(response_format={"type": "json_object"})).passthrough_fields == {}


def test_strictness_of_a_tool_is_kept() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True}}
    assert load_chat(chat(tools=[tool])).tools[0].strict is True
