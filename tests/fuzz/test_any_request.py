"""Whatever a client sends: a request, or an error that says what is wrong
with it, in little time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.dialects.anthropic.load import load_chat as load_message
from ollama_proxy.dialects.body import DECISIVE, check_keys, parse_object
from ollama_proxy.dialects.embeddings import load_embeddings as load_openai_embeddings
from ollama_proxy.dialects.embeddings import load_encoding
from ollama_proxy.dialects.native import load as native
from ollama_proxy.dialects.native import schemas
from ollama_proxy.dialects.openai.load import load_chat, load_completion
from ollama_proxy.dialects.responses.load import load_response
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest
from ollama_proxy.upstreams.ollama.codec import encode_chat, encode_embed, encode_generate
from ollama_proxy.wire.lines import encode_request
from tests.fuzz.strategies import TEXTS, documents
from tests.rig.tables import each_row

Load = Callable[[dict[str, Any]], Any]


def native_load(envelope: Any, load: Load) -> Load:
    """As the native routes do it: first the envelope, which Ollama would check as well."""

    def checked(data: dict[str, Any]) -> Any:
        schemas.check_envelope(envelope(), data)
        schemas.model_names(envelope(), data)
        return load(data)

    return checked


LOADS: dict[str, Load] = {
    "/api/chat": native_load(schemas.ChatEnvelope, native.load_chat),
    "/api/generate": native_load(schemas.GenerateEnvelope, native.load_generate),
    "/api/embed": native_load(schemas.EmbedEnvelope, native.load_embed),
    "/api/embeddings": native_load(schemas.EmbeddingsEnvelope, native.load_embeddings),
    "/v1/chat/completions": load_chat,
    "/v1/completions": lambda data: load_completion(data)[0],
    "/v1/embeddings": lambda data: (load_encoding(data), load_openai_embeddings(data))[1],
    "/v1/responses": lambda data: load_response(data)[0],
    "/v1/messages": load_message,
    "/v1/messages/count_tokens": partial(load_message, is_limited=False),
}
EVERY_LOAD = pytest.mark.parametrize("path", LOADS)

WORDS = (
    "allowed_tools arguments audio budget_tokens call_id content data description detail developer "
    "dimensions effort encoding_format file_id format function function_call functions id image "
    "image_url images include input input_audio input_text instructions is_error json_schema "
    "keep_alive max_output_tokens max_tokens media_type messages metadata mode model n name "
    "num_ctx num_predict options output output_config output_text parameters parallel_tool_calls "
    "previous_response_id prompt reasoning response_format role schema source stop stop_sequences "
    "store stream stream_options strict suffix summary system temperature text think thinking "
    "timeout_ms tool_call_id tool_calls tool_choice tool_name tool_result tool_use tool_use_id "
    "tools top_logprobs top_p truncate type url user"
).split()
VALUES = (
    *(
        "system",
        "user",
        "assistant",
        "tool",
        "developer",
        "function",
        "text",
        "image",
        "image_url",
        "input_text",
    ),
    *(
        "tool_use",
        "tool_result",
        "thinking",
        "message",
        "function_call",
        "function_call_output",
        "json_schema",
    ),
    *(
        "auto",
        "any",
        "none",
        "required",
        "base64",
        "url",
        "json",
        "high",
        "data:image/png;base64,iVBORw0KGgo=",
        "f",
        "{}",
    ),
    *(0, 1, -1, 17, 2**63, 2**64 - 1, 1.5, 1e300, True, False, None, "", [], {}),
)
ANYTHING = documents(WORDS, VALUES, leaves=12)

MESSAGES = [{"role": "user", "content": "hi"}]
#: What each would take.
GOOD: Mapping[str, dict[str, Any]] = {
    "/api/chat": {"model": "m", "messages": MESSAGES},
    "/api/generate": {"model": "m", "prompt": "hi"},
    "/api/embed": {"model": "m", "input": "hi"},
    "/api/embeddings": {"model": "m", "prompt": "hi"},
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/v1/embeddings": {"model": "m", "input": "hi"},
    "/v1/responses": {"model": "m", "input": "hi"},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": MESSAGES},
    "/v1/messages/count_tokens": {"model": "m", "messages": MESSAGES},
}


def check(load: Load, data: dict[str, Any]) -> None:
    """Loads it and writes what an upstream would get of it: both may only fail with an error of the
    gateway, whose text can be sent."""
    try:
        asked = load(data)
        match asked:
            case ChatRequest():
                encode_request(encode_chat(asked))
            case GenerateRequest():
                encode_request(encode_generate(asked))
            case EmbedRequest():
                encode_request(encode_embed(asked))
    except GatewayError as error:
        assert 400 <= error.status < 500 and str(error)
        orjson.dumps({"error": str(error), "param": error.param})


@each_row("path", GOOD)
def test_what_is_good_is_taken(path: str) -> None:
    assert LOADS[path](GOOD[path]).model == "m"


@EVERY_LOAD
@given(data=ANYTHING)
def test_any_fields_are_taken_or_refused(path: str, data: dict[str, Any]) -> None:
    check(LOADS[path], data)
    check(LOADS[path], GOOD[path] | data)


def in_messages(value: Any) -> list[dict[str, Any]]:
    """Every place of a conversation with this value in it."""
    turns: list[Any] = [
        value,
        [value],
        {"role": "user", "content": value},
        {"role": value, "content": "a"},
    ]
    turns += [
        {"role": "user", "content": [value]},
        {"role": "user", "content": "a", "images": value},
    ]
    turns += [
        {"role": "user", "content": [{"type": kind, kind: value, "source": value}]}
        for kind in ("text", "image_url", "image")
    ]
    call = {"id": value, "type": "function", "function": {"name": "f", "arguments": value}}
    turns += [
        {"role": "assistant", "tool_calls": value},
        {"role": "assistant", "tool_calls": [call, value]},
    ]
    turns += [{"role": "tool", "tool_call_id": value, "content": value}]
    turns += [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": value, "name": "f", "input": value}],
        }
    ]
    turns += [
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": value, "content": value}],
        }
    ]
    turns += [{"type": "function_call", "call_id": value, "name": "f", "arguments": value}]
    turns += [
        {"type": "function_call_output", "call_id": value, "output": value},
        {"type": "reasoning", "summary": value},
    ]
    return [{name: [*MESSAGES, turn]} for turn in turns for name in ("messages", "input")]


def in_fields(value: Any) -> list[dict[str, Any]]:
    """Every field with this value in it, and every place of tools and formats."""
    function = {"name": value, "description": value, "parameters": value}
    tools = [
        {"type": "function", "function": function},
        {"type": "function", **function},
        function,
        value,
    ]
    formats = [{"type": "json_schema", "json_schema": {"schema": value}}, {"type": value}, value]
    shapes: list[dict[str, Any]] = [{name: value} for name in WORDS] + [
        {"tools": [tool]} for tool in tools
    ]
    shapes += [
        {"response_format": form, "text": {"format": form}, "output_config": {"format": form}}
        for form in formats
    ]
    shapes += [
        {"tools": tools[:1], "tool_choice": {"type": "function", "function": {"name": value}}}
    ]
    return shapes


@EVERY_LOAD
@given(value=st.one_of(st.sampled_from(VALUES), ANYTHING, TEXTS))
def test_any_value_in_any_place_is_taken_or_refused(path: str, value: Any) -> None:
    for fields in [*in_messages(value), *in_fields(value)]:
        check(LOADS[path], GOOD[path] | fields)


# Bodies.


@given(st.one_of(st.binary(max_size=60), ANYTHING.map(orjson.dumps)), st.booleans())
def test_any_body_is_an_object_or_refused(body: bytes, lenient: bool) -> None:
    try:
        data = parse_object(body, lenient_tail=lenient)
        check_keys(data, body, DECISIVE)
    except GatewayError as error:
        assert error.status == 400
        orjson.dumps(str(error))
    else:
        assert isinstance(data, dict)


TWICE = st.lists(
    st.tuples(
        st.sampled_from([*DECISIVE, "Model", "m\\u006fdel", "\\u006dodel", "x"]),
        st.sampled_from("12"),
    )
)


@given(TWICE, st.binary(max_size=3))
def test_what_is_decided_by_is_there_once(pairs: list[tuple[str, str]], tail: bytes) -> None:
    body = b"{" + b",".join(f'"{name}":{value}'.encode() for name, value in pairs) + b"}" + tail
    names = [orjson.loads(f'"{name}"') for name, _ in pairs]
    twice = [name for name in DECISIVE if sum(each.casefold() == name for each in names) > 1]
    with contextlib.suppress(GatewayError):
        check_keys(parse_object(body, lenient_tail=True), body, DECISIVE)
        assert not twice, "the body could be read two ways"
        assert all(name in DECISIVE or name.casefold() not in DECISIVE for name in names)


def deep(levels: int, opens: bytes, closes: bytes) -> bytes:
    return b'{"model":"m","x":' + opens * levels + b"1" + closes * levels + b"}"


HEAVY: Mapping[str, bytes] = {
    "lists": deep(100_000, b"[", b"]"),
    "objects": deep(100_000, b'{"a":', b"}"),
    "lists that never end": b'{"model":"m","x":' + b"[" * 1_000_000,
    "a field often": b'{"model":"m"' + b',"model":"m"' * 100_000 + b"}",
    "many fields": b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "escapes": b'{"model":"' + b"\\u006d" * 200_000 + b'"}',
    "a long number": b'{"model":"m","n":' + b"9" * 1_000_000 + b"}",
    "a long tail": b'{"model":"m"}' + b" x" * 1_000_000,
    "blanks": b" " * 4_000_000,
}
MOST_S = 2.0


@each_row("lenient", [False, True])
@each_row("heavy", HEAVY)
def test_heavy_bodies_take_little_time(heavy: str, lenient: bool) -> None:
    began = time.process_time()
    with contextlib.suppress(GatewayError):
        check_keys(parse_object(HEAVY[heavy], lenient_tail=lenient), HEAVY[heavy], DECISIVE)
    assert time.process_time() - began < MOST_S
