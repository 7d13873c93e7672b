"""Hub requests as bodies of the Messages API: what a provider reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pydantic
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import ChatRequest, Document, Message, Tool, ToolCall
from ollama_proxy.upstreams.anthropic.codec import (
    AS_JSON,
    AS_SCHEMA,
    BUDGETS,
    DEFAULT_TOKENS,
    close_objects,
    encode_chat,
    encode_parameters,
)
from ollama_proxy.upstreams.anthropic.messages import BEGINNING, Thoughts
from ollama_proxy.upstreams.anthropic.models import UNKNOWN, Traits, decode_traits
from tests.rig import messages_provider as rig
from tests.rig.tables import each_row

ADAPTIVE = decode_traits(rig.row())
MANUAL = decode_traits(rig.row(kinds=("enabled", "disabled")))
BOTH = decode_traits(rig.row(kinds=("adaptive", "enabled", "disabled")))
ALWAYS = decode_traits(rig.row(kinds=("adaptive",)))

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
USER = Message("user", "Hi")
CALL = ToolCall("toolu_0123456789abcdef", "f", {"b": 1, "a": [2]})
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def chat(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(model=rig.MODEL, messages=messages or [USER], **fields)


def encoded(
    request: ChatRequest, traits: Traits = UNKNOWN, thoughts: Thoughts | None = None
) -> dict[str, Any]:
    """The body as a provider reads it."""
    body: dict[str, Any] = orjson.loads(
        orjson.dumps(encode_chat(request, traits, thoughts or Thoughts()))
    )
    return body


def turns(
    *messages: Message, thoughts: Thoughts | None = None
) -> list[tuple[str, list[dict[str, Any]]]]:
    body = encoded(chat(*messages), thoughts=thoughts)
    return [(turn["role"], turn["content"]) for turn in body["messages"]]


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


# Messages.


def test_smallest_chat_has_the_one_default_that_the_api_demands() -> None:
    assert encoded(chat()) == {
        "model": rig.MODEL,
        "messages": [{"role": "user", "content": [text("Hi")]}],
        "stream": False,
        "max_tokens": DEFAULT_TOKENS,
    }


def test_system_messages_go_to_the_front_in_their_order() -> None:
    body = encoded(
        chat(Message("system", "A"), USER, Message("developer", "B"), Message("system", " "))
    )
    assert body["system"] == "A\n\nB"
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_system_prompt_alone_is_what_the_model_answers() -> None:
    body = encoded(chat(Message("system", "Say hi.")))
    assert (
        body["messages"] == [{"role": "user", "content": [text("Say hi.")]}]
        and "system" not in body
    )


@pytest.mark.parametrize(
    "messages", [[Message("user", " ")], [Message("system", "")], [Message("assistant", "")]]
)
def test_nothing_to_answer_is_refused(messages: list[Message]) -> None:
    with pytest.raises(BadRequest, match="must contain at least one message with content"):
        encoded(chat(*messages))


def test_messages_of_one_role_are_one_turn() -> None:
    spoken = [
        Message("user", "a"),
        Message("user", "b"),
        Message("assistant", "c"),
        Message("assistant", "d"),
    ]
    assert turns(*spoken, USER) == [
        ("user", [text("a"), text("b")]),
        ("assistant", [text("c"), text("d")]),
        ("user", [text("Hi")]),
    ]


def test_conversation_that_the_model_begins_gets_a_beginning() -> None:
    assert turns(Message("assistant", "Welcome!"), USER)[0] == ("user", [text(BEGINNING)])


def test_answer_to_be_gone_on_with_does_not_end_in_space() -> None:
    assert turns(USER, Message("assistant", "The answer is "))[1] == (
        "assistant",
        [text("The answer is")],
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (base64.b64encode(b"\xff\xd8\xff\xe0 and more").decode(), "image/jpeg"),
        (base64.b64encode(b"GIF89a and more").decode(), "image/gif"),
        (base64.b64encode(b"RIFF\x10\0\0\0WEBPVP8 ").decode(), "image/webp"),
    ],
)
def test_image_is_named_after_its_first_bytes(data: str, kind: str) -> None:
    source = {"type": "base64", "media_type": kind, "data": data}
    [(_, content)] = turns(Message("user", "Look", attachments=[data[:8] + "\n" + data[8:]]))
    assert content == [{"type": "image", "source": source}, text("Look")]


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


def test_a_document_is_sent_as_it_is_before_the_text() -> None:
    named, plain = Document("JVBERi0=", "doc.pdf", 2), Document("JVBERi0=", "", 2)
    [(_, content)] = turns(Message("user", "Look", attachments=[named, PNG, plain]))
    assert [block["type"] for block in content] == ["document", "image", "document", "text"]
    assert content[0] == {"type": "document", "source": PDF, "title": "doc.pdf"}
    assert content[2] == {"type": "document", "source": PDF}


@pytest.mark.parametrize("data", [base64.b64encode(b"%PDF-1.7 whatever").decode(), "?", ""])
def test_image_of_another_kind_is_refused(data: str) -> None:
    with pytest.raises(BadRequest, match="must be PNG, JPEG, GIF or WebP"):
        turns(Message("user", "Look", attachments=[data]))


# Calls and their results.


def use(call_id: str, name: str = "f", arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments or {}}


def result(call_id: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id} | (
        {"content": list(content)} if content else {}
    )


def test_call_and_result_keep_their_id_and_their_order_of_keys() -> None:
    history = [
        USER,
        Message("assistant", "Wait.", tool_calls=[CALL]),
        Message("tool", "4", tool_call_id=CALL.id),
    ]
    assert turns(*history)[1:] == [
        ("assistant", [text("Wait."), use(CALL.id, "f", {"b": 1, "a": [2]})]),
        ("user", [result(CALL.id, text("4"))]),
    ]
    assert b'"input":{"b":1,"a":[2]}' in orjson.dumps(
        encode_chat(chat(*history), UNKNOWN, Thoughts())
    )


def test_results_without_ids_find_their_call_by_name_and_always_the_same_one() -> None:
    calls = [ToolCall("", "f", {}), ToolCall("", "g", {})]
    results = [Message("tool", "from g", tool_name="g"), Message("tool", "from f", tool_name="f")]
    history = [USER, Message("assistant", tool_calls=calls), *results]
    assert turns(*history)[1:] == [
        ("assistant", [use("call_0", "f"), use("call_1", "g")]),
        ("user", [result("call_1", text("from g")), result("call_0", text("from f"))]),
    ]
    assert encode_chat(chat(*history), UNKNOWN, Thoughts()) == encode_chat(
        chat(*history), UNKNOWN, Thoughts()
    )


def test_id_of_a_result_says_more_than_its_name() -> None:
    calls = [ToolCall("a1", "f", {}), ToolCall("a2", "f", {})]
    results = [Message("tool", each, tool_name="f", tool_call_id=each) for each in ("a2", "a1")]
    history = [USER, Message("assistant", tool_calls=calls), *results]
    assert turns(*history)[2] == ("user", [result("a2", text("a2")), result("a1", text("a1"))])


def test_results_without_id_and_name_come_in_the_order_of_the_calls() -> None:
    calls = [ToolCall("", "f", {}), ToolCall("", "f", {})]
    history = [
        USER,
        Message("assistant", tool_calls=calls),
        Message("tool", "1"),
        Message("tool", "2"),
    ]
    assert turns(*history)[2] == (
        "user",
        [result("call_0", text("1")), result("call_1", text("2"))],
    )


def test_equal_ids_are_made_different_and_foreign_characters_replaced() -> None:
    calls = [ToolCall("functions.f:0", "f", {}), ToolCall("functions.f:0", "f", {})]
    results = [
        Message("tool", "1", tool_call_id="functions.f:0"),
        Message("tool", "2", tool_call_id="functions.f:0"),
    ]
    (_, (_, called), (_, answered)) = turns(USER, Message("assistant", tool_calls=calls), *results)
    assert [block["id"] for block in called] == ["functions_f_0", "functions_f_0_1"]
    assert [block["tool_use_id"] for block in answered] == ["functions_f_0", "functions_f_0_1"]


def test_results_stand_before_what_the_user_says_in_the_same_turn() -> None:
    history = [
        USER,
        Message("assistant", tool_calls=[CALL]),
        Message("user", "and?"),
        Message("tool", "4"),
    ]
    assert turns(*history)[2] == ("user", [result(CALL.id, text("4")), text("and?")])


def test_result_whose_call_is_not_in_the_history_is_told_as_text() -> None:
    assert turns(USER, Message("tool", "21 C", tool_name="weather", tool_call_id="gone")) == [
        ("user", [text("Hi"), text("weather: 21 C")])
    ]


def test_result_of_an_earlier_turn_is_not_taken_for_one_of_a_later_call() -> None:
    late = Message("tool", "late", tool_name="f")
    history = [
        USER,
        Message("assistant", tool_calls=[ToolCall("a1", "f", {})]),
        Message("user", "never mind"),
    ]
    history += [Message("assistant", "Fine."), late]
    assert turns(*history)[-1] == ("user", [text("f: late")])


def test_result_may_be_empty_or_an_image() -> None:
    calls = [ToolCall("a1", "f", {}), ToolCall("a2", "f", {})]
    results = [
        Message("tool", tool_call_id="a1"),
        Message("tool", tool_call_id="a2", attachments=[PNG]),
    ]
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
    }
    assert turns(USER, Message("assistant", tool_calls=calls), *results)[2] == (
        "user",
        [result("a1"), result("a2", picture)],
    )


def test_tools_are_passed_on_untouched() -> None:
    parameters = {"type": "object", "$defs": {"x": {"oneOf": [True]}}, "properties": {"a": True}}
    tools = [Tool("f", "Does f.", parameters, strict=True), Tool("g", None, None)]
    assert encoded(chat(tools=tools))["tools"] == [
        {"name": "f", "description": "Does f.", "input_schema": parameters},
        {"name": "g", "input_schema": {"type": "object"}},
    ]
    assert encoded(chat(tools=tools), ADAPTIVE)["tools"][0]["strict"] is True


def test_history_with_calls_keeps_their_tools_though_none_are_on_offer() -> None:
    body = encoded(chat(USER, Message("assistant", tool_calls=[CALL]), Message("tool", "4")))
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


@each_row(
    ("choice", "parallel", "said"),
    [
        (None, None, None),
        (None, True, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ({"name": "f"}, None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ({"name": "f"}, False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
    ],
)
def test_choice_of_tools_has_its_own_switch(choice: Any, parallel: bool | None, said: Any) -> None:
    request = chat(tools=[Tool("f", None, None)], tool_choice=choice, parallel_tool_calls=parallel)
    assert encoded(request).get("tool_choice") == said
    assert encode_parameters(request, UNKNOWN, Thoughts()).unsaid == []


# Parameters.


@each_row(
    ("options", "traits", "tokens"),
    [
        ({"num_predict": 100}, UNKNOWN, 100),
        ({"num_predict": -1}, UNKNOWN, DEFAULT_TOKENS),
        ({"num_predict": 0}, UNKNOWN, DEFAULT_TOKENS),
        ({}, ADAPTIVE, 64_000),
        ({"num_predict": 100_000}, ADAPTIVE, 64_000),
        ({"num_predict": 100_000}, UNKNOWN, 100_000),
    ],
)
def test_limit_is_the_clients_else_the_models_own(
    options: dict[str, Any], traits: Traits, tokens: int
) -> None:
    assert encoded(chat(options=options), traits)["max_tokens"] == tokens


def test_thinking_comes_on_top_of_an_answer_without_a_limit() -> None:
    assert encoded(chat(think="low"))["max_tokens"] == DEFAULT_TOKENS + BUDGETS["low"]


@each_row(
    ("options", "traits", "said", "unsaid"),
    [
        ({"temperature": 0.2, "top_k": 5}, UNKNOWN, {"temperature": 0.2, "top_k": 5}, []),
        ({"temperature": 1.6}, UNKNOWN, {"temperature": 1.0}, []),
        ({"top_p": 0.5}, BOTH, {"top_p": 0.5}, []),
        ({"temperature": 0, "top_p": 0.5}, UNKNOWN, {"temperature": 0}, ["top_p"]),
        (
            {"temperature": 0.2, "top_p": 0.5, "top_k": 1},
            ADAPTIVE,
            {},
            ["temperature", "top_k", "top_p"],
        ),
        ({"stop": "END"}, UNKNOWN, {"stop_sequences": ["END"]}, []),
        ({"stop": ["\n\n", "END"]}, UNKNOWN, {"stop_sequences": ["END"]}, ["stop"]),
        ({"stop": []}, UNKNOWN, {}, []),
        ({"num_ctx": 100, "seed": 1, "min_p": 0.1}, UNKNOWN, {}, []),
    ],
)
def test_options_that_the_model_takes(
    options: dict[str, Any], traits: Traits, said: dict[str, Any], unsaid: list[str]
) -> None:
    request = chat(options=options)
    names = ("temperature", "top_p", "top_k", "stop_sequences", "seed", "min_p", "num_ctx")
    assert {
        name: value for name, value in encoded(request, traits).items() if name in names
    } == said
    assert encode_parameters(request, traits, Thoughts()).unsaid == unsaid


SHOWN = {"display": "summarized"}


@each_row(
    ("think", "traits", "thinking", "effort"),
    [
        (None, ADAPTIVE, None, None),
        (False, ADAPTIVE, {"type": "disabled"}, None),
        (False, ALWAYS, None, None),
        (False, UNKNOWN, {"type": "disabled"}, None),
        (True, ADAPTIVE, {"type": "adaptive"} | SHOWN, None),
        ("low", ADAPTIVE, {"type": "adaptive"} | SHOWN, "low"),
        ("max", ADAPTIVE, {"type": "adaptive"} | SHOWN, "high"),
        (True, BOTH, {"type": "adaptive"} | SHOWN, None),
        (True, MANUAL, {"type": "enabled", "budget_tokens": BUDGETS["medium"]} | SHOWN, None),
        ("max", MANUAL, {"type": "enabled", "budget_tokens": BUDGETS["max"] - 768} | SHOWN, None),
        ("high", UNKNOWN, {"type": "enabled", "budget_tokens": BUDGETS["high"]}, None),
    ],
)
def test_thinking_is_asked_for_as_the_model_takes_it(
    think: bool | str | None, traits: Traits, thinking: Any, effort: str | None
) -> None:
    body = encoded(chat(think=think), traits)
    assert body.get("thinking") == thinking
    assert body.get("output_config") == ({"effort": effort} if effort else None)
    assert not thinking or thinking.get("budget_tokens", 0) < body["max_tokens"]


@each_row(
    ("limit", "budget"),
    [(100, None), (1024, None), (1025, 1024), (3000, 1500), (60_000, BUDGETS["medium"])],
)
def test_thinking_leaves_room_for_the_answer(limit: int, budget: int | None) -> None:
    request = chat(think=True, options={"num_predict": limit})
    body = encoded(request, MANUAL)
    assert (body["max_tokens"], body["thinking"].get("budget_tokens")) == (limit, budget)
    assert encode_parameters(request, MANUAL, Thoughts()).unsaid == ([] if budget else ["think"])


def test_thinking_that_nobody_wants_to_read_is_not_sent() -> None:
    assert (
        encoded(chat(think=True, exclude_reasoning=True), ADAPTIVE)["thinking"]["display"]
        == "omitted"
    )


@pytest.mark.parametrize("traits", [ADAPTIVE, MANUAL, BOTH, UNKNOWN])
def test_model_that_must_call_a_tool_does_not_think(traits: Traits) -> None:
    request = chat(think=True, tools=[Tool("f", None, None)], tool_choice="required")
    assert encoded(request, traits)["thinking"] == {"type": "disabled"}
    assert encode_parameters(request, traits, Thoughts()).unsaid == ["think"]


def test_model_that_thinks_gets_no_sampling() -> None:
    request = chat(think=True, options={"temperature": 0.5, "top_p": 0.9})
    assert not encoded(request, MANUAL).keys() & {"temperature", "top_p"}
    assert encode_parameters(request, MANUAL, Thoughts()).unsaid == ["temperature", "top_p"]


def test_model_without_thinking_says_so_in_ollamas_words() -> None:
    with pytest.raises(BadRequest, match=f'^"{rig.MODEL}" does not support thinking$'):
        encoded(chat(think=True), decode_traits(rig.row(kinds=())))


def test_schema_of_the_answer_has_its_own_switch() -> None:
    request = chat(format=SCHEMA, think="low")
    wanted = {"type": "json_schema", "schema": SCHEMA | {"additionalProperties": False}}
    assert encoded(request, ADAPTIVE)["output_config"] == {"effort": "low", "format": wanted}
    assert encode_parameters(request, ADAPTIVE, Thoughts()).unsaid == []


@pytest.mark.parametrize(
    ("format", "traits", "words"),
    [
        ("json", ADAPTIVE, AS_JSON),
        ("json", UNKNOWN, AS_JSON),
        (SCHEMA, UNKNOWN, AS_SCHEMA + json.dumps(SCHEMA, separators=(",", ":"))),
    ],
)
def test_form_without_a_switch_is_told_in_words(format: Any, traits: Traits, words: str) -> None:
    request = chat(Message("system", "Be brief."), USER, format=format)
    body = encoded(request, traits)
    assert body["system"] == f"Be brief.\n\n{words}" and "output_config" not in body
    assert encode_parameters(request, traits, Thoughts()).unsaid == ["format"]


@each_row(
    ("schema", "sent"),
    [
        ({"type": "string"}, {"type": "string"}),
        (
            {"type": "object", "additionalProperties": False},
            {"type": "object", "additionalProperties": False},
        ),
        (
            {"type": "object", "additionalProperties": True},
            {"type": "object", "additionalProperties": False},
        ),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "description": '{"minimum":1}'}),
        (
            {"type": "string", "maxLength": 5, "description": "A word."},
            {"type": "string", "description": 'A word.\n\n{"maxLength":5}'},
        ),
        (
            {"type": "array", "minItems": 1, "items": True},
            {"type": "array", "minItems": 1, "items": True},
        ),
        ({"type": "array", "minItems": 2}, {"type": "array", "description": '{"minItems":2}'}),
        (
            {"$defs": {"a": {"properties": {"minimum": {"type": "null"}}}}, "$ref": "#/$defs/a"},
            {
                "$defs": {
                    "a": {
                        "properties": {"minimum": {"type": "null"}},
                        "additionalProperties": False,
                    }
                },
                "$ref": "#/$defs/a",
            },
        ),
        (
            {"oneOf": [{"type": "object"}]},
            {"anyOf": [{"type": "object", "additionalProperties": False}]},
        ),
        ({"oneOf": [], "anyOf": []}, {"oneOf": [], "anyOf": []}),
        (
            {"properties": {"a": {"anyOf": [{"type": "object"}]}}},
            {
                "properties": {"a": {"anyOf": [{"type": "object", "additionalProperties": False}]}},
                "additionalProperties": False,
            },
        ),
    ],
)
def test_schema_is_closed_and_its_limits_are_told(schema: Any, sent: Any) -> None:
    assert json.dumps(close_objects(schema)) == json.dumps(sent)


@each_row(
    ("user", "metadata"),
    [
        ("team-7", {"user_id": "team-7"}),
        ("a@example.com", None),
        ("+49 (30) 123 45-67", None),
        ("x" * 257, None),
        (None, None),
    ],
)
def test_user_is_named_unless_the_name_is_personal(user: str | None, metadata: Any) -> None:
    request = chat(user=user)
    assert encoded(request).get("metadata") == metadata
    assert encode_parameters(request, UNKNOWN, Thoughts()).unsaid == (
        ["user"] if user and not metadata else []
    )


def test_fields_of_the_api_itself_go_on_and_those_of_others_do_not() -> None:
    own = {
        "cache_control": {"type": "ephemeral"},
        "service_tier": "standard_only",
        "inference_geo": "eu",
    }
    assert encoded(chat(passthrough_fields=own)).items() >= own.items()
    foreign = {
        "service_tier": "flex",
        "store": True,
        "cache_control": "yes",
        "inference_geo": 5,
        "context_management": {"edits": []},
    }
    assert encoded(chat(passthrough_fields=foreign)) == encoded(chat())


def consumed(value: Any) -> Any:
    """What a lazy validation has let through, all of it."""
    if isinstance(value, dict):
        return {name: consumed(inner) for name, inner in value.items()}
    return (
        value
        if value is None or isinstance(value, str | int | float)
        else [consumed(inner) for inner in value]
    )


@each_row("traits", [UNKNOWN, ADAPTIVE, MANUAL])
@each_row(
    "fields",
    [
        {"think": True},
        {"think": "low", "format": SCHEMA},
        {
            "tools": [Tool("f", "x", SCHEMA, True)],
            "tool_choice": {"name": "f"},
            "parallel_tool_calls": False,
        },
        {
            "user": "u",
            "passthrough_fields": {"cache_control": {"type": "ephemeral"}},
            "options": {"stop": ["a"]},
        },
    ],
)
def test_body_is_one_that_anthropics_own_client_could_send(
    fields: dict[str, Any], traits: Traits
) -> None:
    thoughts = Thoughts()
    thoughts.keep(CALL.id, [THOUGHT])
    spoken = Message("assistant", "w", tool_calls=[CALL])
    results = [Message("tool", "4", tool_call_id=CALL.id, attachments=[PNG])]
    history = [Message("system", "s"), Message("user", "a", attachments=[PNG]), spoken, *results]
    body = encoded(chat(*history, **fields), traits, thoughts)
    types: Any = pydantic.TypeAdapter(MessageCreateParamsNonStreaming)
    assert consumed(types.validate_python(body)) == body


# Thinking that comes back.


def test_signed_thinking_stands_before_the_call_that_it_led_to() -> None:
    thoughts = Thoughts()
    thoughts.keep(CALL.id, [THOUGHT])
    called = Message("assistant", "Wait.", thinking="Hm.", tool_calls=[CALL])
    assert turns(USER, called, Message("tool", "4"), thoughts=thoughts)[1] == (
        "assistant",
        [THOUGHT, text("Wait."), use(CALL.id, "f", {"b": 1, "a": [2]})],
    )


@pytest.mark.parametrize(("traits", "kind"), [(MANUAL, "disabled"), (ADAPTIVE, "adaptive")])
def test_calls_whose_thinking_is_lost_end_it_only_where_the_model_insists(
    traits: Traits, kind: str
) -> None:
    request = chat(USER, Message("assistant", tool_calls=[CALL]), Message("tool", "4"), think=True)
    assert encoded(request, traits)["thinking"]["type"] == kind
    assert encode_parameters(request, traits, Thoughts()).unsaid == (
        ["think"] if kind == "disabled" else []
    )
    kept = Thoughts()
    kept.keep(CALL.id, [THOUGHT])
    assert encoded(request, MANUAL, kept)["thinking"]["type"] == "enabled"


def test_thoughts_are_forgotten_from_the_oldest_on() -> None:
    thoughts = Thoughts(max_bytes=50_000)
    for number in range(10):
        thoughts.keep(f"toolu_0123456789_{number}", [THOUGHT | {"thinking": "x" * 20_000}])
    assert [number for number in range(10) if thoughts.of(f"toolu_0123456789_{number}")] == [8, 9]


def test_thoughts_of_an_id_that_anybody_could_guess_are_not_kept() -> None:
    thoughts = Thoughts()
    thoughts.keep("call_0", [THOUGHT])
    assert thoughts.of("call_0") == ()
