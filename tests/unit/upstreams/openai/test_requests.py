"""Hub requests in the words of each provider: what is sent, and what is
left to its own defaults."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest, Json, Message, Tool
from ollama_proxy.settings.provider_profiles import PROFILES, Profile
from ollama_proxy.upstreams.openai.requests import (
    IN_JSON,
    MATCH_SCHEMA,
    decode_embed,
    encode_chat,
    encode_embed,
    encode_generate,
    select_passthrough,
    shorten,
)
from tests.rig.tables import each_row

HI = [Message("user", "hi")]
PLAIN = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}


def chat(profile: Profile | None = None, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    asked = ChatRequest(**{"model": "m", "messages": HI} | fields)
    return encode_chat(asked, profile or Profile(), stream=stream)


def extra(profile: Profile | None = None, **fields: Any) -> dict[str, Any]:
    """What a request adds to the plainest one."""
    body = chat(profile, **fields)
    return {name: value for name, value in body.items() if PLAIN.get(name) != value}


def test_absent_parameters_stay_absent() -> None:
    assert chat() == PLAIN


@each_row("kind", PROFILES)
def test_absent_parameters_stay_absent_for_every_kind(kind: str) -> None:
    assert chat(PROFILES[kind]) == PLAIN


def test_streams_ask_for_their_usage() -> None:
    expected = PLAIN | {"stream": True, "stream_options": {"include_usage": True}}
    assert chat(stream=True) == expected
    assert chat(Profile(stream_options=False), stream=True) == PLAIN | {"stream": True}


OPTIONS: dict[str, tuple[dict[str, Json], dict[str, Json]]] = {
    "the same names": (
        {"temperature": 0, "top_p": 0.5, "seed": 0, "presence_penalty": 1, "frequency_penalty": -1},
        {"temperature": 0, "top_p": 0.5, "seed": 0, "presence_penalty": 1, "frequency_penalty": -1},
    ),
    "null": ({"temperature": None, "stop": None, "num_predict": None}, {}),
    "a limit": ({"num_predict": 9}, {"max_tokens": 9}),
    "no limit": ({"num_predict": -1}, {}),
    "no limit by 0": ({"num_predict": 0}, {}),
    "until the context is full": ({"num_predict": -2}, {}),
    "stops": ({"stop": ["a", "", "b"]}, {"stop": ["a", "b"]}),
    "one stop": ({"stop": "a"}, {"stop": ["a"]}),
    "empty stops": ({"stop": [""]}, {}),
    "those of Ollama alone": (
        {"num_ctx": 1, "num_gpu": 1, "mirostat": 1, "repeat_last_n": 1, "made_up": 1},
        {},
    ),
    "those of some servers": (
        {"top_k": 1, "min_p": 0.1, "typical_p": 0.1, "repeat_penalty": 1.1},
        {},
    ),
}


@each_row(("options", "expected"), OPTIONS.values())
def test_options(options: dict[str, Json], expected: dict[str, Json]) -> None:
    assert extra(options=options) == expected


def test_the_limit_has_one_name_or_the_other() -> None:
    profile = Profile(limit_field="max_completion_tokens")
    assert extra(profile, options={"num_predict": 9}) == {"max_completion_tokens": 9}


def test_options_that_a_server_has_beside_those_of_openai() -> None:
    options = {"top_k": 1, "min_p": 0.1, "typical_p": 0.2, "repeat_penalty": 1.1}
    assert extra(PROFILES["vllm"], options=options) == {
        "top_k": 1,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
    }
    assert extra(PROFILES["llamacpp"], options=options) == options


THINKING: list[tuple[str, dict[str, Any], Any, dict[str, Json]]] = [
    ("none", {}, True, {}),
    ("none", {}, "high", {}),
    ("reasoning_effort", {}, True, {}),
    ("reasoning_effort", {}, False, {}),
    ("reasoning_effort", {}, "low", {"reasoning_effort": "low"}),
    (
        "reasoning_effort",
        {"efforts": {"max": "xhigh", "none": "none"}},
        "max",
        {"reasoning_effort": "xhigh"},
    ),
    (
        "reasoning_effort",
        {"efforts": {"max": "xhigh", "none": "none"}},
        False,
        {"reasoning_effort": "none"},
    ),
    ("reasoning_effort", {"efforts": {"default": "medium"}}, True, {"reasoning_effort": "medium"}),
    ("thinking", {}, True, {"thinking": {"type": "enabled"}}),
    ("thinking", {}, False, {"thinking": {"type": "disabled"}}),
    ("thinking", {}, "max", {"thinking": {"type": "enabled"}, "reasoning_effort": "max"}),
    ("enable_thinking", {}, True, {"enable_thinking": True}),
    ("enable_thinking", {}, False, {"enable_thinking": False}),
    ("enable_thinking", {}, "low", {"enable_thinking": True}),
    (
        "enable_thinking",
        {"budgets": {"low": 512}},
        "low",
        {"enable_thinking": True, "thinking_budget": 512},
    ),
    ("reasoning", {}, True, {"reasoning": {"enabled": True}}),
    ("reasoning", {}, False, {"reasoning": {"enabled": False}}),
    ("reasoning", {}, "high", {"reasoning": {"effort": "high"}}),
    ("chat_template_kwargs", {}, True, {"chat_template_kwargs": {"enable_thinking": True}}),
    ("chat_template_kwargs", {}, False, {"chat_template_kwargs": {"enable_thinking": False}}),
    (
        "chat_template_kwargs",
        {},
        "high",
        {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"},
    ),
]


@each_row(("switch", "settings", "think", "expected"), THINKING)
def test_thinking(
    switch: str, settings: dict[str, Any], think: Any, expected: dict[str, Json]
) -> None:
    assert extra(Profile(thinking=switch, **settings), think=think) == expected


def test_what_a_template_is_told_beside_the_thinking_is_kept() -> None:
    told = extra(
        PROFILES["vllm"], think=False, passthrough_fields={"chat_template_kwargs": {"other": 1}}
    )
    assert told == {"chat_template_kwargs": {"enable_thinking": False, "other": 1}}


SCHEMA = {
    "$defs": {"a": {"type": "string"}},
    "oneOf": [{"$ref": "#/$defs/a"}],
    "additionalProperties": False,
}
TOOL = Tool("f", "does it", SCHEMA | {"properties": {"x": True, "y": {"default": 1}}})
SENT = {
    "type": "function",
    "function": {"name": "f", "description": "does it", "parameters": TOOL.parameters},
}


def test_tools_are_not_narrowed() -> None:
    assert extra(tools=[TOOL]) == {"tools": [SENT]}


def test_a_tool_of_few_words() -> None:
    assert extra(tools=[Tool("f", None, None, strict=True)]) == {
        "tools": [{"type": "function", "function": {"name": "f", "strict": True}}]
    }


def test_what_else_is_said_of_a_tool_goes_on_but_is_no_other_name_for_it() -> None:
    tool = Tool("f", None, None, passthrough_fields={"cache": {"type": "x"}, "name": "g"})
    assert extra(tools=[tool]) == {
        "tools": [{"type": "function", "function": {"cache": {"type": "x"}, "name": "f"}}]
    }


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_the_choice_of_a_tool_is_kept(choice: Any, sent: Json) -> None:
    assert extra(tools=[TOOL], tool_choice=choice)["tool_choice"] == sent


@pytest.mark.parametrize("parallel", [True, False])
def test_calls_side_by_side(parallel: bool) -> None:
    assert extra(tools=[TOOL], parallel_tool_calls=parallel)["parallel_tool_calls"] is parallel


def test_nothing_is_said_of_tools_where_there_are_none() -> None:
    assert extra(tool_choice="auto", parallel_tool_calls=False) == {}


FORMAT = {"type": "object", "properties": {"a": {"type": "string"}}}


def test_any_json() -> None:
    assert extra(format="json") == {"response_format": {"type": "json_object"}}


def test_json_by_a_schema() -> None:
    assert extra(format=FORMAT) == {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "schema", "schema": FORMAT},
        }
    }


def test_the_name_of_a_schema_and_whether_it_is_strict() -> None:
    named = {"name": "fruit", "description": "d", "strict": True, "schema": FORMAT}
    told = extra(
        format=FORMAT,
        passthrough_fields={"response_format": {"type": "json_schema", "json_schema": named}},
    )
    assert told == {"response_format": {"type": "json_schema", "json_schema": named}}


def test_a_schema_that_the_provider_has_no_switch_for_is_put_in_words() -> None:
    body = chat(Profile(json_schema=False), format=FORMAT)
    assert body["response_format"] == {"type": "json_object"}
    order, said = body["messages"]
    assert (order["role"], said) == ("system", {"role": "user", "content": "hi"})
    assert order["content"].startswith(MATCH_SCHEMA) and '"properties"' in order["content"]


def test_words_go_behind_the_system_message_that_is_there() -> None:
    messages = [Message("system", "Be kind."), *HI]
    told = chat(Profile(json_word=True), format="json", messages=messages)["messages"]
    assert [message["role"] for message in told] == ["system", "user"]
    assert told[0]["content"] == f"Be kind.\n\n{IN_JSON}"


@pytest.mark.parametrize("said", ["Give me JSON", "a json object please"])
def test_the_word_is_said_once(said: str) -> None:
    told = chat(Profile(json_word=True), format="json", messages=[Message("user", said)])
    assert told["messages"] == [{"role": "user", "content": said}]


def test_the_word_is_said_only_for_json() -> None:
    assert chat(Profile(json_word=True)) == PLAIN


@pytest.mark.parametrize(
    ("logprobs", "top", "sent"),
    [(True, 3, {"logprobs": True, "top_logprobs": 3}), (None, None, {})],
)
def test_log_probabilities(logprobs: bool | None, top: int | None, sent: dict[str, Json]) -> None:
    assert extra(logprobs=logprobs, top_logprobs=top) == sent


def test_who_asks() -> None:
    assert extra(user="ann") == {"user": "ann"}


def test_fields_that_the_hub_has_no_name_for() -> None:
    carried = {
        "logit_bias": {"1": 2},
        "verbosity": "low",
        "store": False,
        "unheard_of": 1,
        "container": "c",
    }
    assert extra(passthrough_fields=carried) == {
        "logit_bias": {"1": 2},
        "verbosity": "low",
        "store": False,
    }


def test_fields_of_a_provider_alone() -> None:
    carried = {"provider": {"order": ["a"]}}
    assert extra(passthrough_fields=carried) == {}
    assert extra(PROFILES["openrouter"], passthrough_fields=carried) == carried


@pytest.mark.parametrize(
    ("tier", "sent"), [("flex", {"service_tier": "flex"}), ("standard_only", {})]
)
def test_words_of_another_vendor_are_not_passed_on(tier: str, sent: dict[str, Json]) -> None:
    asked = ChatRequest(model="m", messages=HI, passthrough_fields={"service_tier": tier})
    assert select_passthrough(asked, Profile()) == sent


# Completions.


def generate(**fields: Any) -> dict[str, Any]:
    asked = GenerateRequest(**{"model": "m", "prompt": "a"} | fields)
    return encode_generate(asked, Profile(limit_field="max_completion_tokens"), stream=False)


def test_a_plain_prompt() -> None:
    assert generate() == {"model": "m", "prompt": "a", "stream": False}


def test_a_prompt_with_all_that_it_may_have() -> None:
    asked = generate(
        suffix="b", options={"num_predict": 5, "temperature": 0.1}, logprobs=True, top_logprobs=2
    )
    told = {"suffix": "b", "max_tokens": 5, "temperature": 0.1, "logprobs": 2}
    assert asked == {"model": "m", "prompt": "a", "stream": False} | told


# Vectors.


def test_texts_to_embed() -> None:
    asked = EmbedRequest(model="m", input=["a", "b", "c"], dimensions=5, user="ann")
    expected = {
        "model": "m",
        "input": ["b"],
        "encoding_format": "float",
        "dimensions": 5,
        "user": "ann",
    }
    assert encode_embed(asked, ["b"], Profile()) == expected


def test_nobody_is_asked_for_what_it_can_not_do() -> None:
    asked = EmbedRequest(model="m", input=["a"], dimensions=5)
    assert "dimensions" not in encode_embed(asked, ["a"], Profile(dimensions=False))


def rows(*numbered: tuple[int, Any]) -> dict[str, Any]:
    data = [{"index": index, "embedding": vector} for index, vector in numbered]
    return {"data": data, "usage": {"prompt_tokens": 4, "total_tokens": 5}}


def test_vectors_come_in_the_order_of_the_texts() -> None:
    assert decode_embed(rows((2, [3.0]), (0, [1.0]), (1, [2.0])), 3) == ([[1.0], [2.0], [3.0]], 4)


def test_numbers_that_say_nothing_leave_the_order_as_it_is() -> None:
    assert decode_embed(rows((0, [3.0]), (0, [1.0])), 2)[0] == [[3.0], [1.0]]


def test_vectors_without_numbers() -> None:
    document = {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}], "usage": {"total_tokens": 9}}
    assert decode_embed(document, 2) == ([[1.0], [2.0]], 9)


def test_vectors_in_base64() -> None:
    packed = base64.b64encode(array("f", [1.5, -2.0]).tobytes()).decode()
    assert decode_embed(rows((0, packed)), 1)[0] == [[1.5, -2.0]]


@each_row(
    "document",
    [
        {},
        {"data": None},
        {"data": [1]},
        rows((0, [1.0])),
        rows((0, [1.0]), (1, [1.0]), (2, [1.0])),
        rows((0, [1.0]), (1, [])),
        rows((0, [1.0]), (1, ["a"])),
        rows((0, [1.0]), (1, "!!!")),
        rows((0, [1.0]), (1, "YWI=")),
        rows((0, [1.0]), (1, None)),
        rows((0, [1.0]), (1, [[1.0]])),
    ],
)
def test_vectors_that_are_none(document: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError):
        decode_embed(document, 2)


def test_a_shortened_vector_has_length_1_again() -> None:
    assert shorten([3.0, 4.0, 12.0], 2) == [0.6, 0.8]
    assert shorten([3.0, 4.0], 2) == [3.0, 4.0]
    assert shorten([0.0, 0.0, 1.0], 2) == [0.0, 0.0]
