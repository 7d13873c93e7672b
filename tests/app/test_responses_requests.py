"""What requests to the Responses face become: every field is mapped, carried or refused, and it
shows. What becomes of the items of `input` is in test_responses_items."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ollama_proxy.dialects.responses.schemas import ResponseSchema
from ollama_proxy.dialects.schema_fields import CARRIED, MAPPED, REFUSED, Extensions
from tests.golden.face import forwarded, post
from tests.golden.fates import Ask, Asked, Document, Fate, option, sent
from tests.golden.responses import asking
from tests.golden.responses.asking import PATH, messages
from tests.golden.responses.reading import events
from tests.rig import native_chat
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Json, Lines
from tests.rig.local import LocalGateway
from tests.rig.nesting import nested

SCHEMA = ResponseSchema()
#: What every translated request carries to Ollama.
ALWAYS = {"model", "messages", "stream", "truncate", "shift"}
PARAMETERS: Document = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}
TOOL: Document = {"type": "function", "name": "f", "parameters": PARAMETERS, "strict": True}
SENT_TOOL: Document = {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}
TOOLS = [TOOL, TOOL | {"name": "g"}]


ask = asking.ask


def echoes(name: str, value: Any) -> Callable[[Asked], bool]:
    return lambda asked: asked.answer.json()[name] == value


def both(*checks: Callable[[Asked], bool]) -> Callable[[Asked], bool]:
    return lambda asked: all(check(asked) for check in checks)


#: The fields of OpenAI's request as of August 2026, the two penalties of Open Responses, and
#: what becomes of them.
FATES: dict[str, Fate] = {
    "model": Fate(
        MAPPED, "other:tag", both(sent("model", "other:tag"), echoes("model", "other:tag"))
    ),
    "input": Fate(MAPPED, "Yo", sent("messages", [{"role": "user", "content": "Yo"}])),
    "instructions": Fate(
        MAPPED,
        "Be brief.",
        both(
            lambda a: messages(a)[0] == {"role": "system", "content": "Be brief."},
            echoes("instructions", "Be brief."),
        ),
    ),
    "stream": Fate(
        MAPPED, True, lambda a: events(a.answer.body)[-1]["type"] == "response.completed"
    ),
    "stream_options": Fate(
        MAPPED,
        {"include_obfuscation": True},
        lambda a: b"obfuscation" not in a.answer.body,
        {"stream": True},
    ),
    "include": Fate(MAPPED, ["message.output_text.logprobs"], sent("logprobs", True)),
    "temperature": Fate(
        MAPPED, 0.25, both(option("temperature", 0.25), echoes("temperature", 0.25))
    ),
    "top_p": Fate(MAPPED, 0.75, both(option("top_p", 0.75), echoes("top_p", 0.75))),
    "presence_penalty": Fate(
        MAPPED, -0.5, both(option("presence_penalty", -0.5), echoes("presence_penalty", -0.5))
    ),
    "frequency_penalty": Fate(
        MAPPED, 0.5, both(option("frequency_penalty", 0.5), echoes("frequency_penalty", 0.5))
    ),
    "max_output_tokens": Fate(
        MAPPED, 16, both(option("num_predict", 16), echoes("max_output_tokens", 16))
    ),
    "max_tool_calls": Fate(MAPPED, 3, echoes("max_tool_calls", 3)),
    "top_logprobs": Fate(
        MAPPED, 3, both(sent("top_logprobs", 3), sent("logprobs", True), echoes("top_logprobs", 3))
    ),
    "text": Fate(
        MAPPED,
        {"format": {"type": "json_object"}},
        both(
            sent("format", "json"),
            lambda a: json.loads(a.answer.body)["text"] == {"format": {"type": "json_object"}},
        ),
    ),
    "reasoning": Fate(
        MAPPED,
        {"effort": "low", "summary": "auto"},
        both(sent("think", "low"), echoes("reasoning", {"effort": "low", "summary": "auto"})),
    ),
    "tools": Fate(
        MAPPED,
        [TOOL],
        both(sent("tools", [SENT_TOOL]), echoes("tools", [TOOL | {"description": None}])),
    ),
    "tool_choice": Fate(
        MAPPED,
        "none",
        both(lambda a: "tools" not in a.sent, echoes("tool_choice", "none")),
        {"tools": [TOOL]},
    ),
    "parallel_tool_calls": Fate(MAPPED, False, echoes("parallel_tool_calls", False)),
    "truncation": Fate(MAPPED, "auto", echoes("truncation", "auto")),
    # Its place is the access log, where a test of its own looks for it.
    "user": Fate(MAPPED, "somebody", echoes("user", "somebody")),
    "previous_response_id": Fate(REFUSED, "resp_1"),
    "conversation": Fate(REFUSED, {"id": "conv_1"}),
    "background": Fate(REFUSED, True),
    "prompt": Fate(REFUSED, {"id": "pmpt_1"}),
    "context_management": Fate(REFUSED, [{"type": "compaction", "compact_threshold": 1000}]),
    "metadata": Fate(CARRIED, {"team": "a"}, echoes("metadata", {"team": "a"})),
    "moderation": Fate(CARRIED, {"model": "x"}, lambda asked: True),
    "prompt_cache_key": Fate(CARRIED, "key", echoes("prompt_cache_key", "key")),
    "prompt_cache_options": Fate(CARRIED, {"ttl": "1h"}, lambda asked: True),
    "prompt_cache_retention": Fate(CARRIED, "24h", lambda asked: True),
    "safety_identifier": Fate(CARRIED, "hash", echoes("safety_identifier", "hash")),
    "service_tier": Fate(CARRIED, "priority", echoes("service_tier", "default")),
    "store": Fate(CARRIED, True, echoes("store", False)),
}


@pytest.mark.parametrize("name", FATES)
def test_field_has_the_effect_that_its_fate_promises(name: str, ask: Ask) -> None:
    fate = FATES[name]
    asked = ask(**fate.beside, **{name: fate.value})
    assert getattr(SCHEMA.fields[name], "handling", None) == fate.kind
    if fate.kind == REFUSED:
        error = asked.answer.json()["error"]
        assert (asked.answer.status, error["param"], error["type"]) == (
            400,
            name,
            "invalid_request_error",
        )
        assert name in error["message"]
        assert asked.sent == {}
        return
    assert asked.answer.status == 200, asked.answer.text
    assert fate.shows(asked), (asked.sent, asked.answer)
    assert asked.ignored == ([name] if fate.kind == CARRIED else [""])


def test_every_field_of_the_schema_has_a_fate_here() -> None:
    extensions = Extensions().fields.keys() | {"reasoning_effort", "format"}
    assert SCHEMA.fields.keys() - extensions == FATES.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", False),
        ("store", None),
        ("service_tier", "auto"),
        ("service_tier", "default"),
        ("background", False),
        ("context_management", []),
        ("previous_response_id", None),
        ("conversation", None),
        ("prompt", None),
        ("metadata", {}),
        ("include", []),
        ("include", ["file_search_call.results", "reasoning.encrypted_content"]),
        ("truncation", "disabled"),
        ("tool_choice", "auto"),
        ("tools", []),
        ("parallel_tool_calls", True),
        ("text", {"format": {"type": "text"}}),
        ("text", {}),
        ("reasoning", {}),
        ("reasoning", {"summary": "detailed"}),
        ("stream_options", {"include_obfuscation": False}),
    ],
)
def test_values_that_ask_for_nothing_special_are_taken_in_silence(
    name: str, value: Any, ask: Ask
) -> None:
    asked = ask(**{name: value})
    assert (asked.answer.status, asked.answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, None)
    assert asked.sent.keys() == ALWAYS


def test_verbosity_is_named_where_it_has_no_effect(ask: Ask) -> None:
    asked = ask(text={"verbosity": "low"})
    assert (asked.ignored, asked.answer.json()["text"]["verbosity"]) == (["text.verbosity"], "low")


def test_absent_sampling_stays_absent_and_the_answer_shows_the_documented_defaults(
    ask: Ask,
) -> None:
    """G15"""
    asked = ask()
    assert asked.sent.keys() == ALWAYS
    shown = asked.answer.json()
    assert [
        shown[name] for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")
    ] == [1, 1, 0, 0]


def test_zero_is_not_absent(ask: Ask) -> None:
    fields = {"temperature": 0, "top_p": 0, "presence_penalty": 0, "frequency_penalty": 0}
    assert ask(**fields).options == fields


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"options": {"num_ctx": 4096, "temperature": 0.1}}, {"num_ctx": 4096, "temperature": 0.1}),
        ({"options": {"temperature": 0.1}, "temperature": 0.2}, {"temperature": 0.2}),
        ({"num_ctx": 4096, "top_k": 5, "min_p": 0.5}, {"num_ctx": 4096, "top_k": 5, "min_p": 0.5}),
        ({"num_gpu": 1, "seed": 7, "stop": "x"}, {"num_gpu": 1, "seed": 7, "stop": ["x"]}),
        ({"num_predict": 5, "max_output_tokens": 7}, {"num_predict": 7}),
    ],
)
def test_options_of_ollama_are_an_extension(fields: Document, expected: Document, ask: Ask) -> None:
    assert ask(**fields).options == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("keep_alive", "10m"), ("think", "high"), ("think", False), ("format", "json")],
)
def test_other_extensions(name: str, value: Any, ask: Ask) -> None:
    assert ask(**{name: value}).sent[name] == value


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_is_left_out_where_nobody_wants_it(
    stream: bool, ask: Ask, upstream: FaultUpstream
) -> None:
    document = native_chat.done("Yes.", thinking="hm")
    upstream.script("/api/chat", [Lines([document])] if stream else [Json(document)])
    answer = ask(exclude_reasoning=True, stream=stream).answer
    response = events(answer.body)[-1]["response"] if stream else answer.json()
    assert [item["type"] for item in response["output"]] == ["message"]


def test_user_is_in_the_access_log(gateway: LocalGateway) -> None:
    post(gateway, PATH, {"model": "m", "input": "Hi", "user": "user of responses"})
    wait_until(
        lambda: "user of responses" in [row.get("user") for row in gateway.log_lines("access")],
        5,
        "it is in no line",
    )


@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
def test_G27_gateway_without_state_says_what_to_do(name: str, ask: Ask) -> None:
    error = ask(**{name: "resp_1"}).answer.json()["error"]
    assert "send the whole history in input" in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ""},
        {"input": []},
        {"input": None},
        {"input": 5},
        {"input": {"role": "user"}},
        {"input": [], "instructions": "Be brief."},
        {"input": [{"type": "web_search_call", "id": "ws_1"}]},
        {"model": ""},
        {"model": None},
    ],
)
def test_empty_request_is_no_order_to_load_a_model(fields: Document, ask: Ask) -> None:
    """G10"""
    asked = ask(**fields)
    assert (asked.answer.status, asked.sent) == (400, {})
    assert asked.answer.json()["error"]["param"] == next(iter(fields))


def test_tools_that_are_nested_too_deep_are_refused(ask: Ask) -> None:
    asked = ask(tools=[TOOL | {"parameters": nested(260)}])
    assert (asked.answer.status, asked.sent) == (400, {})
    assert "nested too deep" in asked.answer.json()["error"]["message"]


def test_every_field_at_fault_is_named_at_once(ask: Ask) -> None:
    error = ask(temperature="hot", background=True, max_output_tokens=1.5).answer.json()["error"]
    assert [
        name in error["message"] for name in ("temperature", "background", "max_output_tokens")
    ] == [True] * 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"truncation": "middle"}, "truncation"),
        ({"service_tier": "turbo"}, "service_tier"),
        ({"include": ["everything"]}, "include"),
        ({"include": "reasoning.encrypted_content"}, "include"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"instructions": ["a"]}, "instructions"),
        ({"text": "json"}, "text"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"reasoning": {"effort": "High"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"tools": [5]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"tools": [TOOL | {"parameters": "x"}]}, "tools[0].parameters"),
        ({"tools": [TOOL | {"strict": "yes"}]}, "tools[0].strict"),
        ({"tools": [TOOL, TOOL | {"name": "a b"}]}, "tools[1].name"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "h"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto"}},
            "tool_choice.tools",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [TOOL]}},
            "tool_choice.mode",
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "mcp"}],
                },
            },
            "tool_choice.tools[0].type",
        ),
    ],
)
def test_value_that_cannot_be_honoured_is_refused_by_name(
    fields: Document, param: str, ask: Ask
) -> None:
    asked = ask(**fields)
    error = asked.answer.json()["error"]
    assert (asked.answer.status, error["param"], asked.sent) == (400, param, {})
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    "kind",
    [
        "web_search",
        "web_search_preview",
        "file_search",
        "computer",
        "mcp",
        "code_interpreter",
        "image_generation",
    ],
)
def test_tool_that_a_server_would_run_is_left_out(kind: str, ask: Ask) -> None:
    asked = ask(tools=[TOOL, {"type": kind, "name": "x"}])
    assert (len(asked.sent["tools"]), len(asked.answer.json()["tools"]), asked.ignored) == (
        1,
        1,
        [kind],
    )


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "max"),
    ],
)
def test_G21_effort(effort: str, think: Any, ask: Ask) -> None:
    asked = ask(reasoning={"effort": effort})
    assert asked.sent["think"] == think
    shown = {"minimal": "low"}.get(effort, effort)
    assert asked.answer.json()["reasoning"] == {"effort": shown, "summary": None}


def test_schema_is_not_touched(ask: Ask, upstream: FaultUpstream) -> None:
    schema = {
        "type": "object",
        "$defs": {"z": {}, "a": {}},
        "properties": {"b": {"$ref": "#/$defs/z"}, "a": {}},
    }
    asked = ask(
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    )
    assert json.dumps(asked.sent["format"]) == json.dumps(schema)
    assert json.dumps(asked.answer.json()["text"]["format"]["schema"]) == json.dumps(schema)


NAMED = {"type": "function", "name": "g"}


def names(asked: Asked) -> list[str]:
    return [tool["function"]["name"] for tool in asked.sent.get("tools", [])]


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ("none", []),
        ("auto", ["f", "g"]),
        ("required", ["f", "g"]),
        (NAMED, ["g"]),
        ({"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}, ["g"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [NAMED]}, ["g"]),
        ({"type": "allowed_tools", "mode": "auto", "tools": TOOLS}, ["f", "g"]),
    ],
)
def test_G19_tool_choice(choice: Any, offered: list[str], ask: Ask) -> None:
    asked = ask(tools=TOOLS, tool_choice=choice)
    assert (asked.answer.status, names(asked)) == (200, offered)
    shown = asked.answer.json()
    assert shown["tool_choice"] == choice
    assert [tool["name"] for tool in shown["tools"]] == ["f", "g"]


def test_one_call_at_a_time(ask: Ask, upstream: FaultUpstream) -> None:
    calls = [
        {"id": f"c{number}", "function": {"name": "f", "arguments": {}}} for number in range(2)
    ]
    upstream.script("/api/chat", [Json(native_chat.done(tool_calls=calls))])
    asked = ask(tools=[TOOL], parallel_tool_calls=False)
    assert [item["call_id"] for item in asked.answer.json()["output"]] == ["c0"]


@pytest.mark.parametrize(
    ("fields", "asked_uncut"),
    [
        ({}, [True]),
        ({"truncation": "disabled"}, [True]),
        ({"truncation": None}, [True]),
        ({"truncation": "auto"}, [True, False]),
        ({"truncate": True}, [True, False]),
    ],
)
def test_prompt_that_is_too_long_is_cut_only_where_the_client_allows_it(
    fields: Document, asked_uncut: list[bool], ask: Ask, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Json({"error": "the input length exceeds the context length"}, 400)]
    )
    answer = ask(**fields).answer
    assert (answer.status, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    chats = [seen.json() for seen in forwarded(upstream) if seen.path == "/api/chat"]
    assert [chat.get("truncate") is False for chat in chats] == asked_uncut
