"""What Anthropic's requests become: every field is mapped, carried or refused, and it
shows; so is every block."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming as BetaParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming as Params

from ollama_proxy.dialects.anthropic.schemas import MessagesSchema
from ollama_proxy.dialects.schema_fields import CARRIED, REFUSED
from tests.golden import anthropic_fates
from tests.golden.anthropic_fates import (
    COUNT,
    FATES,
    MESSAGES,
    OLDER,
    PNG,
    SMALLEST,
    TOOL,
    USER,
    assert_refused,
    base64_image,
)
from tests.golden.face import TOKEN, forwarded, post
from tests.golden.fates import Ask, Document
from tests.rig import native_chat
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway

ask = anthropic_fates.ask


def test_every_field_of_the_official_client_has_a_fate() -> None:
    # `betas` becomes a header.
    assert FATES.keys() == (
        Params.__annotations__.keys() | BetaParams.__annotations__.keys() | OLDER
    ) - {"betas"}


@pytest.mark.parametrize("name", FATES)
def test_field_has_the_effect_that_its_fate_promises(name: str, ask: Ask) -> None:
    fate = FATES[name]
    assert getattr(MessagesSchema().fields[name], "handling", None) == fate.kind
    asked = ask(**fate.beside, **{name: fate.value})
    if fate.kind == REFUSED:
        assert_refused(asked, name)
    elif fate.kind == CARRIED:
        assert (asked.answer.status, asked.ignored) == (200, [name])
    else:
        assert asked.answer.status == 200
        assert asked.answer.headers.get("X-Ollama-Proxy-Ignored") is None
        assert fate.shows(asked), (asked.sent, asked.answer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp_servers", []),
        ("metadata", {}),
        ("tools", []),
        ("stop_sequences", []),
        ("system", ""),
        ("system", []),
        ("stream", None),
        ("tool_choice", {"type": "auto"}),
        ("output_config", {}),
        ("output_config", {"effort": None, "format": None}),
        ("cache_control", None),
        ("context_management", {}),
    ],
)
def test_values_that_ask_for_nothing_special_are_taken_in_silence(
    name: str, value: Any, ask: Ask
) -> None:
    asked = ask(**{name: value})
    assert (asked.answer.status, asked.answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, None)
    assert asked.sent.keys() == {
        "model",
        "messages",
        "stream",
        "options",
        "think",
        "truncate",
        "shift",
    }
    assert asked.sent["messages"] == USER and asked.options == {"num_predict": 9}


def test_unknown_fields_are_carried_and_named(ask: Ask) -> None:
    asked = ask(brand_new_field={"a": 1}, another="x")
    assert asked.ignored == ["brand_new_field", "another"]
    assert not asked.sent.keys() & {"brand_new_field", "another"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "", "max_tokens": 0, "messages": []}, "model is required"),
        ({"model": None}, "model is required"),
        ({"max_tokens": 0, "messages": []}, "max_tokens is required and must be positive"),
        ({"max_tokens": None}, "max_tokens is required and must be positive"),
        ({"max_tokens": -1}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        ({"messages": None}, "messages is required"),
    ],
)
def test_what_is_missing_is_told_one_by_one_and_no_order_to_load_a_model(
    fields: Document, message: str, ask: Ask
) -> None:
    assert assert_refused(ask(**fields), "") == message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", "5"),
        ("max_tokens", 5.5),
        ("messages", "Hi"),
        ("system", 5),
        ("stream", "yes"),
        ("temperature", "hot"),
        ("stop_sequences", "X"),
        ("stop_sequences", [5]),
        ("tools", {}),
        ("tool_choice", 5),
        ("thinking", True),
        ("thinking", {"budget_tokens": 5}),
        ("output_config", "high"),
        ("metadata", "u"),
        ("think", "very"),
        ("request_timeout", -1),
    ],
)
def test_value_of_another_type_is_refused_by_name(name: str, value: Any, ask: Ask) -> None:
    assert_refused(ask(**{name: value}), name)


def test_every_field_at_fault_is_named_at_once(ask: Ask) -> None:
    message = assert_refused(ask(temperature="hot", thread={"type": "create"}, top_k=1.5), "")
    assert [name in message for name in ("temperature", "thread", "top_k")] == [True] * 3


def test_zero_is_not_absent_and_null_is(ask: Ask) -> None:
    assert ask(temperature=0, top_p=None, top_k=0).options == {
        "temperature": 0,
        "top_k": 0,
        "num_predict": 9,
    }


def test_extensions_of_ollama_are_taken_and_anthropics_own_fields_win(
    ask: Ask,
) -> None:
    asked = ask(options={"num_predict": 1, "mirostat": 2}, num_ctx=4096, min_p=0.1, keep_alive="5m")
    assert asked.options == {"num_predict": 9, "mirostat": 2, "num_ctx": 4096, "min_p": 0.1}
    assert asked.sent["keep_alive"] == "5m"


def test_thinking_may_be_left_out(ask: Ask, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Json(native_chat.done("a", thinking="t"))])
    answer = ask(exclude_reasoning=True, thinking={"type": "adaptive"}).answer.json()
    assert answer["content"] == [{"type": "text", "text": "a"}]


def test_user_is_in_the_access_log(gateway: LocalGateway, ask: Ask) -> None:
    ask(metadata={"user_id": "somebody of messages"})
    user = "somebody of messages"
    wait_until(
        lambda: user in [row.get("user") for row in gateway.log_lines("access")],
        5,
        f"{user} is in no line",
    )


@pytest.mark.parametrize("metadata", [{"user_id": 5}, {"user_id": ["x"]}])
def test_user_is_a_text(metadata: Document, ask: Ask) -> None:
    assert_refused(ask(metadata=metadata), "metadata.user_id")


# Addresses and heads.


@pytest.mark.parametrize("path", [MESSAGES, "/anthropic/v1/messages"])
@pytest.mark.parametrize("query", ["", "?beta=true", "?a=b&c"])
def test_both_addresses_take_messages_and_no_query_matters(path: str, query: str, ask: Ask) -> None:
    """S2-36"""
    answer = ask(path + query).answer
    assert (answer.status, answer.json()["type"]) == (200, "message")


@pytest.mark.parametrize("name", ["x-api-key", "Authorization", "api-key"])
def test_G29_token_may_come_as_either_kind_of_client_sends_it(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """S2-39; and it stays here."""
    answer = gateway.request("POST", MESSAGES, SMALLEST, {name: TOKEN, "anthropic-beta": "a,b"})
    assert answer.status == 200
    [seen] = [one for one in forwarded(upstream) if one.path == "/api/chat"]
    assert TOKEN not in str(seen.headers) and "anthropic" not in str(seen.headers).lower()


def test_G29_token_in_the_path_is_taken_too(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert gateway.request("POST", f"/k/{TOKEN}{MESSAGES}", SMALLEST).status == 200


@pytest.mark.parametrize(
    ("sent_version", "echoed"),
    [
        (None, "2023-06-01"),
        ("2023-06-01", "2023-06-01"),
        ("2026-10-21", "2026-10-21"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "2023-06-01"),
        ("two words", "2023-06-01"),
        ("\xe9", "2023-06-01"),
        ("", "2023-06-01"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_version_is_echoed(
    sent_version: str | None, echoed: str, stream: bool, gateway: LocalGateway
) -> None:
    """S2-40"""
    headers = {} if sent_version is None else {"anthropic-version": sent_version}
    answer = post(gateway, MESSAGES, SMALLEST | {"stream": stream}, **headers)
    assert (answer.status, answer.headers.get("anthropic-version")) == (200, echoed)


@pytest.mark.parametrize("stream", [True, False])
def test_request_id_is_told_by_the_name_that_clients_read(
    stream: bool, gateway: LocalGateway, request_id: str
) -> None:
    answer = post(gateway, MESSAGES, SMALLEST | {"stream": stream}, **{"X-Request-Id": request_id})
    assert (
        answer.headers.get_all("request-id")
        == [request_id]
        == answer.headers.get_all("X-Request-Id")
    )


def test_other_faces_have_none_of_these_headers(gateway: LocalGateway) -> None:
    answer = post(gateway, "/v1/chat/completions", {"model": "m", "messages": USER})
    assert answer.status == 200
    assert (
        answer.headers.get("request-id") is None and answer.headers.get("anthropic-version") is None
    )


# Thinking and formats.


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, False),
        ({"thinking": {}}, False),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, True),
        (
            {
                "thinking": {"type": "enabled", "budget_tokens": 5},
                "output_config": {"effort": "low"},
            },
            True,
        ),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "between_tools"}}, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": " Medium "}}, "medium"),
        ({"output_config": {"effort": "high"}}, "high"),
        ({"output_config": {"effort": "xhigh"}}, "high"),
        ({"output_config": {"effort": "max"}}, "max"),
        ({"output_config": {"effort": "turbo"}}, None),
        ({"think": "low", "thinking": {"type": "disabled"}}, "low"),
        ({"think": False, "thinking": {"type": "enabled", "budget_tokens": 5}}, False),
    ],
)
def test_G21_thinking(fields: Document, think: Any, ask: Ask) -> None:
    """S2-43"""
    asked = ask(**fields)
    assert (asked.answer.status, asked.sent.get("think")) == (200, think)


@pytest.mark.parametrize("stream", [True, False])
def test_G21_thinking_that_a_model_can_not_do_is_silently_off(
    stream: bool, ask: Ask, upstream: FaultUpstream, request_id: str
) -> None:
    upstream.script(
        "/api/show", [Json({"capabilities": ["completion"], "details": {}, "model_info": {}})]
    )
    # What models can do is remembered, so this one must be new.
    asked = ask(
        model=request_id, thinking={"type": "enabled", "budget_tokens": 1024}, stream=stream
    )
    assert (asked.answer.status, asked.sent.get("think")) == (200, None)


def test_effort_of_another_type_is_refused(ask: Ask) -> None:
    assert_refused(ask(output_config={"effort": 5}), "output_config.effort")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
        ({"output_config": {"format": "json"}}, "output_config.format"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_object"}}, "output_format.type"),
        ({"output_format": {"type": "json_schema", "schema": []}}, "output_format.schema"),
    ],
)
def test_format_that_cannot_be_kept_is_named(fields: Document, where: str, ask: Ask) -> None:
    assert_refused(ask(**fields), where)


# Counting.


def count(gateway: LocalGateway, path: str = COUNT, **fields: Any) -> Answer:
    return post(gateway, path, {"model": "m", "messages": USER} | fields)


@pytest.mark.parametrize(
    "path", [COUNT, "/anthropic/v1/messages/count_tokens", COUNT + "?beta=true"]
)
def test_G29_tokens_are_counted_without_a_model(
    path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = count(gateway, path)
    assert (answer.status, answer.json()) == (200, {"input_tokens": 1})
    assert not [seen for seen in forwarded(upstream) if seen.path == "/api/chat"]


def test_count_takes_what_messages_take_and_grows_with_it(gateway: LocalGateway) -> None:
    small = count(gateway, messages=[{"role": "user", "content": "x" * 400}]).json()["input_tokens"]
    more: Document = {
        "system": "y" * 400,
        "tools": [TOOL],
        "thinking": {"type": "adaptive"},
        "tool_choice": {"type": "auto"},
    }
    large = count(gateway, messages=[{"role": "user", "content": "x" * 400}], **more).json()[
        "input_tokens"
    ]
    assert small == 100 and large > 200


def test_count_of_an_image_does_not_depend_on_its_bytes(gateway: LocalGateway) -> None:
    data = base64.b64encode(bytes(300_000)).decode()
    small, large = (
        count(gateway, messages=[{"role": "user", "content": [base64_image(one)]}]).json()[
            "input_tokens"
        ]
        for one in (PNG, data)
    )
    assert small == large == 1500


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"model": ""}, "model is required"), ({"messages": []}, "messages is required")],
)
def test_count_needs_a_model_and_messages(
    fields: Document, message: str, gateway: LocalGateway
) -> None:
    answer = count(gateway, **fields)
    assert (answer.status, answer.json()["error"]["message"]) == (400, message)


def test_G29_count_needs_a_token(gateway: LocalGateway) -> None:
    answer = gateway.request(
        "POST", COUNT, {"model": "m", "messages": USER}, {"x-api-key": "wrong"}
    )
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authentication_error")
