"""Ollama's own requests to hub requests: what is kept, what is refused in Ollama's words, and
what is only an order."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from ollama_proxy.dialects.native.load import (
    find_ignored,
    find_purpose,
    load_chat,
    load_embed,
    load_embeddings,
    load_generate,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, GenerateRequest, Message, ToolCall
from tests.rig.tables import each_row

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SCHEMA = {
    "type": "object",
    "$defs": {"place": {"oneOf": [{"type": "string"}, {"type": "null"}]}},
    "properties": {
        "where": {"$ref": "#/$defs/place"},
        "any": True,
        "how": {"default": 1, "minimum": 0},
    },
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
}


def chat(**fields: Any) -> ChatRequest:
    return load_chat({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields})


def message(**fields: Any) -> Message:
    return load_chat({"model": "m", "messages": [{"role": "user", **fields}]}).messages[0]


def generate(**fields: Any) -> ChatRequest | GenerateRequest:
    return load_generate({"model": "m", "prompt": "Hi", **fields})


def refusal(load: Callable[..., Any], **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        load(**fields)
    return refused.value


def test_a_chat_keeps_all_that_it_says() -> None:
    asked = chat(
        stream=False, think="high", format=SCHEMA, logprobs=True, top_logprobs=2, truncate=False
    )
    assert (asked.model, asked.messages) == (
        "m",
        [Message("user", "Hi", attachments=[], tool_calls=[])],
    )
    assert (asked.stream, asked.think, asked.format, asked.logprobs) == (
        False,
        "high",
        SCHEMA,
        True,
    )
    assert (asked.top_logprobs, asked.truncate) == (2, False)


def test_absent_parameters_stay_absent() -> None:
    asked = chat(options=None, think=None, format=None, tools=None, logprobs=None, keep_alive=None)
    assert (asked.options, asked.think, asked.format, asked.tools, asked.logprobs) == (
        {},
        None,
        None,
        [],
        None,
    )
    assert (asked.top_logprobs, asked.truncate, asked.exclude_reasoning, asked.timeout_ms) == (
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("given", "streams"), [({}, True), ({"stream": None}, True), ({"stream": False}, False)]
)
def test_streams_unless_told_otherwise(given: dict[str, Any], streams: bool) -> None:
    assert chat(**given).stream is streams


def test_tools_keep_their_schemas_untouched() -> None:
    (tool,) = chat(tools=[TOOL]).tools
    assert (tool.name, tool.description, tool.strict) == ("f", "d", True)
    assert tool.parameters is SCHEMA


def test_history_of_ollama_python_has_calls_without_ids() -> None:
    calls = [
        {"function": {"name": "f", "arguments": {"b": 1, "a": 2}}},
        {"function": {"name": "g", "arguments": None}},
    ]
    said = message(role="assistant", tool_calls=calls)
    assert said.tool_calls == [ToolCall("", "f", {"b": 1, "a": 2}), ToolCall("", "g", {})]
    assert list(said.tool_calls[0].arguments) == ["b", "a"]


def test_results_name_their_tool_or_their_call() -> None:
    result = message(role="tool", content="21", tool_name="f", tool_call_id="c1")
    assert result == Message(
        "tool", "21", attachments=[], tool_calls=[], tool_name="f", tool_call_id="c1"
    )


@each_row(
    ("role", "meant"),
    [
        ("System", "system"),
        ("developer", "system"),
        ("USER", "user"),
        ("assistant", "assistant"),
        ("tool", "tool"),
    ],
)
def test_roles_are_read_in_any_case(role: str, meant: str) -> None:
    assert message(role=role).role == meant


def test_thinking_and_images_of_a_message_are_kept() -> None:
    said = message(role="assistant", thinking="hm", images=[PNG])
    assert (said.thinking, said.attachments) == ("hm", [PNG])


def test_line_ends_in_base64_are_skipped_as_go_does() -> None:
    assert message(images=[PNG[:4] + "\r\n" + PNG[4:]]).attachments == [PNG]


@pytest.mark.parametrize(
    ("options", "loaded"),
    [
        (
            {"temperature": 0, "seed": 5.7, "stop": ["a", ""]},
            {"temperature": 0, "seed": 5, "stop": ["a"]},
        ),
        ({"num_ctx": None, "unknown": {"x": 1}}, {"unknown": {"x": 1}}),
    ],
)
def test_options_are_what_ollama_makes_of_them(
    options: dict[str, Any], loaded: dict[str, Any]
) -> None:
    assert chat(options=options).options == loaded


@each_row(
    ("options", "text"),
    [
        ({"stop": "X"}, 'option "stop" must be of type array'),
        ({"stop": [5]}, 'option "stop" must be of an array of strings'),
        ({"num_predict": "9"}, 'option "num_predict" must be of type integer'),
        ({"seed": True}, 'option "seed" must be of type integer'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
    ],
)
def test_G16_an_option_of_the_wrong_type_is_the_clients_fault(
    options: dict[str, Any], text: str
) -> None:
    refused = refusal(chat, options=options)
    assert (str(refused), refused.status) == (text, 400)


@each_row(
    ("fields", "text"),
    [
        (
            {"think": "none"},
            'invalid think value: "none" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            {"think": 1},
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        (
            {"format": "xml"},
            'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
        ),
        ({"format": []}, 'invalid format: "[]"; expected "json" or a valid JSON Schema object'),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        (
            {"logprobs": "yes"},
            "json: cannot unmarshal string into Go struct field ChatRequest.logprobs of type bool",
        ),
        (
            {"tools": {}},
            "json: cannot unmarshal object into Go struct field ChatRequest.tools "
            "of type []interface {}",
        ),
        (
            {"tools": ["f"]},
            "json: cannot unmarshal string into Go struct field "
            "ChatRequest.tools[0] of type api.Tool",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type: must be 'function'"),
        ({"tools": [{"function": {}}]}, "tools[0].function.name: is required"),
        ({"request_timeout": 0}, "request_timeout: must be a number of milliseconds, at least 1"),
    ],
)
def test_what_ollama_refuses_is_refused_in_its_words(fields: dict[str, Any], text: str) -> None:
    assert str(refusal(chat, **fields)).startswith(text)


@each_row(
    ("fields", "text"),
    [
        ({"role": "wizard"}, "messages[0].role: must be 'system', 'user', 'assistant' or 'tool'"),
        ({"role": None}, "messages[0].role: must be 'system', 'user', 'assistant' or 'tool'"),
        (
            {"content": [{"type": "text"}]},
            "json: cannot unmarshal array into Go struct field "
            "ChatRequest.messages.content of type string",
        ),
        ({"images": ["data:image/png;base64,AAAA"]}, "illegal base64 data at input byte 4"),
        ({"images": [PNG[:-1]]}, "illegal base64 data at input byte"),
        (
            {"images": [5]},
            "json: cannot unmarshal number into Go struct field Request.images of type []uint8",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            "json: cannot unmarshal string into",
        ),
        (
            {"tool_calls": [{"function": {}}]},
            "messages[0].tool_calls[0].function.name: is required",
        ),
        ({"tool_calls": ["f"]}, "json: cannot unmarshal string into"),
    ],
)
def test_messages_that_can_not_be_sent_are_refused(fields: dict[str, Any], text: str) -> None:
    assert str(refusal(message, **fields)).startswith(text)


def test_a_message_must_be_an_object() -> None:
    assert "api.Message" in str(refusal(chat, messages=[None]))


def test_a_completion_is_a_chat_of_one_turn() -> None:
    asked = generate(
        system="Be brief.", images=[PNG], format="json", think=True, options={"seed": 1}
    )
    assert isinstance(asked, ChatRequest)
    assert asked.messages == [
        Message("system", "Be brief."),
        Message("user", "Hi", attachments=[PNG]),
    ]
    assert (asked.format, asked.think, asked.options, asked.stream) == (
        "json",
        True,
        {"seed": 1},
        True,
    )


def test_a_completion_with_a_suffix_is_a_text_to_fill_in() -> None:
    asked = generate(suffix="end", system="Be brief.", stream=False)
    assert isinstance(asked, GenerateRequest)
    assert (asked.prompt, asked.suffix, asked.system, asked.stream) == (
        "Hi",
        "end",
        "Be brief.",
        False,
    )


@each_row(
    ("fields", "param"),
    [
        ({"raw": True}, "raw"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"suffix": "x", "format": "json"}, "suffix"),
        ({"suffix": "x", "images": [PNG]}, "suffix"),
        ({"prompt": 5}, "prompt"),
    ],
)
def test_what_needs_the_models_own_template_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    assert refusal(generate, **fields).param == param


def test_fields_without_effect_are_named() -> None:
    fields = {"context": [1, 2], "shift": True, "keep_alive": "5m", "raw": False, "options": {}}
    assert find_ignored(fields) == ["context", "shift", "keep_alive"]
    assert find_ignored({"context": [], "shift": None}) == []


@each_row(
    ("route", "data", "order"),
    [
        ("chat", {"messages": []}, "load"),
        ("chat", {"messages": None, "keep_alive": "5m"}, "load"),
        ("chat", {"keep_alive": 0}, "unload"),
        ("chat", {"messages": [{"role": "user"}], "keep_alive": 0}, None),
        ("generate", {"prompt": "", "images": [PNG], "suffix": "x"}, "load"),
        ("generate", {"keep_alive": "0s"}, "unload"),
        ("generate", {"prompt": "Hi"}, None),
        ("embed", {"input": ""}, "load"),
        ("embed", {"input": []}, "load"),
        ("embed", {"input": [""]}, None),
        ("embeddings", {"prompt": ""}, "load"),
        ("embeddings", {"prompt": "Hi"}, None),
    ],
)
def test_G08_nothing_to_answer_is_an_order_to_load_or_unload(
    route: str, data: dict[str, Any], order: str | None
) -> None:
    assert find_purpose(route, data) == order


@each_row(
    ("given", "texts"), [("Hi", ["Hi"]), (["a", ""], ["a", ""]), ([], []), ("", []), (None, [])]
)
def test_texts_to_embed_keep_their_order(given: Any, texts: list[str]) -> None:
    assert load_embed({"model": "m", "input": given}).input == texts


@pytest.mark.parametrize("given", [[[1, 2]], [5], {"a": 1}, 5])
def test_what_is_no_text_is_not_embedded(given: Any) -> None:
    with pytest.raises(BadRequest, match="^invalid input type$"):
        load_embed({"model": "m", "input": given})


@pytest.mark.parametrize(("given", "loaded"), [(3, 3), (0, None), (None, None), (-1, None)])
def test_dimensions_count_from_one(given: int | None, loaded: int | None) -> None:
    assert load_embed({"model": "m", "input": "a", "dimensions": given}).dimensions == loaded


def test_dimensions_are_a_number() -> None:
    with pytest.raises(BadRequest, match=re.escape("EmbedRequest.dimensions of type int")):
        load_embed({"model": "m", "input": "a", "dimensions": "3"})


def test_the_older_embedding_has_one_text() -> None:
    asked = load_embeddings({"model": "m", "prompt": "Hi", "options": {"num_ctx": 5}})
    assert (asked.model, asked.input, asked.options) == ("m", ["Hi"], {"num_ctx": 5})
