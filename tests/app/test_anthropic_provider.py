"""A provider of the Messages API behind the gateway: what its users see of it, in every face
and by its own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2 as httpx
import pytest

from tests.golden.face import TOKEN, frames, get, named_frames, post
from tests.rig import messages_provider as rig
from tests.rig.calls import FACES, PING, Face, access_line, each_face, last_error
from tests.rig.deadline import wait_until
from tests.rig.dialects import DIALECTS, IMAGE, Dialect, Told, Wanted
from tests.rig.errors import ANTHROPIC, assert_error
from tests.rig.fault_upstream import Wait, WaitForPeerClose
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway, LocalTransport
from tests.rig.messages_provider import HELLO, MESSAGES, MODEL, MessagesProvider

KEY_VARIABLE = "CLAUDE_KEY"
THOUGHT = {"type": "thinking", "thinking": "Two calls.", "signature": "c2lnbmVkIGJ5IHRoZW0="}
USES = [
    {
        "type": "tool_use",
        "id": f"toolu_0123456789abcdef{city}",
        "name": "get_weather",
        "input": {"city": city},
    }
    for city in ("Oslo", "Rome")
]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
FUNCTION = {
    "name": WEATHER["name"],
    "description": WEATHER["description"],
    "parameters": WEATHER["input_schema"],
}
ASKED: Any = [{"role": "user", "content": "Hi"}]
#: The dialects that a model can be talked to in.
CHATS = {name: dialect for name, dialect in DIALECTS.items() if name != "embeddings"}
each_chat = pytest.mark.parametrize("dialect", CHATS.values(), ids=CHATS)
each_mode = pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])


shared_provider = module_fixture(MessagesProvider)


def gateway_before(provider: MessagesProvider, **stream: Any) -> LocalGateway:
    declared = {"name": "claude", "kind": "anthropic", "base_url": f"{provider.url}/v1"}
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": [declared | {"api_key_env": KEY_VARIABLE}],
        "models": {
            "helper": {"target": f"claude:{MODEL}", "think": True, "clamp": {"num_predict": 4000}}
        },
        "stream": stream,
    }
    return LocalGateway(config, environ={KEY_VARIABLE: rig.KEY})


@pytest.fixture(scope="module")
def shared_gateway(shared_provider: MessagesProvider) -> Iterator[LocalGateway]:
    """One gateway for the module; its key is in no log."""
    with gateway_before(shared_provider) as running:
        yield running
        logged = [running.log_lines(name) for name in ("access", "events")]
        assert all(logged) and rig.KEY not in json.dumps(logged)


@pytest.fixture
def gateway(shared_gateway: LocalGateway, provider: MessagesProvider) -> Iterator[LocalGateway]:
    yield shared_gateway
    shared_gateway.check_idle()


#: Anthropic's own client, which knows of no gateway.
client = function_fixture(
    lambda gateway: anthropic.Anthropic(
        base_url="http://gateway.test",
        api_key=TOKEN,
        max_retries=0,
        http_client=httpx.Client(transport=LocalTransport(gateway)),
    )
)


def told(dialect: Dialect, answer: Answer, stream: bool) -> Told:
    assert answer.status == 200, answer.text
    return dialect.read_stream(answer.body) if stream else dialect.read_single(answer.json())


def asked_of(provider: MessagesProvider, number: int = -1) -> dict[str, Any]:
    body: dict[str, Any] = provider.asked[number].json()
    return body


# Every face.


@each_mode
@each_chat
def test_every_face_gets_its_answer(
    gateway: LocalGateway, provider: MessagesProvider, dialect: Dialect, stream: bool
) -> None:
    blocks = [THOUGHT, {"type": "text", "text": "Grüße \u2028 你好 🎉"}]
    provider.script(MESSAGES, rig.said(blocks, "max_tokens", stream=stream))
    body = dialect.ask(Wanted("Hi")) | {"model": MODEL, "stream": stream}
    said = told(dialect, post(gateway, dialect.path, body), stream)
    assert said == dialect.shown(
        Told("Grüße \u2028 你好 🎉", "Two calls.", reason="length", usage=(12, 6))
    )
    [seen] = provider.asked
    assert seen.header("x-api-key") == rig.KEY and TOKEN not in str(seen.headers)
    assert seen.json()["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    ]


CACHE = {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 8}


@each_mode
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "chat",
            {
                "prompt_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 8},
            },
        ),
        (
            "responses",
            {
                "input_tokens": 50,
                "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 8},
            },
        ),
        ("messages", {"input_tokens": 12, **CACHE}),
    ],
)
def test_cache_counts_reach_the_client_and_the_access_log(
    gateway: LocalGateway,
    provider: MessagesProvider,
    request_id: str,
    name: str,
    shown: dict[str, Any],
    stream: bool,
) -> None:
    provider.script(MESSAGES, rig.said(rig.HELLO, usage=rig.USAGE | CACHE, stream=stream))
    dialect = DIALECTS[name]
    body = dialect.ask(Wanted("Hi")) | {"model": MODEL, "stream": stream}
    if name == "chat" and stream:
        body["stream_options"] = {"include_usage": True}
    answer = post(gateway, dialect.path, body, **{"X-Request-Id": request_id})
    assert answer.status == 200, answer.text
    read_frames = frames if name == "chat" else named_frames
    documents = read_frames(answer.body) if stream else [answer.json()]
    usages = [
        each.get("response", each).get("usage") for each in documents if isinstance(each, dict)
    ]
    assert shown.items() <= [usage for usage in usages if usage][-1].items()
    line = access_line(gateway, request_id)
    counts = ("prompt_eval_count", "cached_tokens", "cache_write_tokens", "eval_count")
    assert tuple(line[count] for count in counts) == (50, 30, 8, 6)


@each_mode
@pytest.mark.parametrize("name", ["native chat", "chat", "responses", "messages"])
def test_parallel_calls_reach_every_face_that_has_tools(
    gateway: LocalGateway, provider: MessagesProvider, name: str, stream: bool
) -> None:
    provider.script(MESSAGES, rig.said([THOUGHT, *USES], "tool_use", stream=stream))
    dialect = DIALECTS[name]
    body = dialect.ask(Wanted("Hi", tool=True)) | {"model": MODEL, "stream": stream}
    said = told(dialect, post(gateway, dialect.path, body), stream)
    assert said.calls == tuple((use["name"], json.dumps(use["input"])) for use in USES)
    assert (said.thinking, said.reason, said.usage) == ("Two calls.", "tools", (12, 6))


@each_mode
def test_thinking_comes_back_signed_though_the_face_has_no_place_for_it(
    gateway: LocalGateway, provider: MessagesProvider, stream: bool
) -> None:
    provider.script(
        MESSAGES, rig.said([THOUGHT, *USES], "tool_use", stream=False), rig.said(stream=stream)
    )
    asked = {
        "model": MODEL,
        "reasoning_effort": "high",
        "tools": [{"type": "function", "function": FUNCTION}],
    }

    def ask(messages: list[Any], **fields: Any) -> Answer:
        return post(gateway, "/v1/chat/completions", asked | {"messages": messages} | fields)

    [choice] = ask(ASKED).json()["choices"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "21 C"}
        for call in choice["message"]["tool_calls"]
    ]
    assert ask([*ASKED, choice["message"], *results], stream=stream).status == 200
    body = asked_of(provider)
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [THOUGHT, *USES]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": use["id"],
                    "content": [{"type": "text", "text": "21 C"}],
                }
                for use in USES
            ],
        },
    ]
    assert (body["thinking"]["type"], body["output_config"]) == ("adaptive", {"effort": "high"})


@pytest.mark.parametrize(
    "name", ["native chat", "native generate", "chat", "responses", "messages"]
)
def test_pictures_are_passed_on_with_their_kind(
    gateway: LocalGateway, provider: MessagesProvider, name: str
) -> None:
    dialect = DIALECTS[name]
    body = dialect.ask(Wanted("Look", image=True)) | {"model": MODEL, "stream": False}
    assert post(gateway, dialect.path, body).status == 200
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    [turn] = asked_of(provider)["messages"]
    assert turn["content"] == [
        {"type": "image", "source": source},
        {"type": "text", "text": "Look"},
    ]


# What goes wrong.


def body_of(face: Face, stream: bool = True) -> dict[str, Any]:
    return face.body | {"model": MODEL, "stream": stream}


@each_face
def test_error_in_the_middle_ends_the_stream_as_one(
    gateway: LocalGateway, provider: MessagesProvider, face: Face
) -> None:
    provider.script(
        MESSAGES,
        rig.streamed([*list(rig.events(HELLO))[:5], rig.error("overloaded_error", "Overloaded")]),
    )
    answer = post(gateway, face.path, body_of(face))
    assert answer.status == 200 and b"Hel" in answer.body
    assert last_error(answer.body, face) == "Overloaded"


@each_face
@pytest.mark.parametrize("is_clean", [True, False], ids=["closed", "torn"])
def test_answer_that_is_cut_never_looks_whole(
    gateway: LocalGateway, provider: MessagesProvider, face: Face, is_clean: bool
) -> None:
    provider.script(MESSAGES, rig.streamed(list(rig.events(HELLO))[:-1], cut=not is_clean))
    answer = post(gateway, face.path, body_of(face))
    assert b"Hel" in answer.body and last_error(answer.body, face)


@each_face
@pytest.mark.parametrize(
    ("status", "kind", "said", "given", "text"),
    [
        (404, "not_found_error", f"model: {MODEL}", 404, f"model '{MODEL}' not found"),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 > 8",
            400,
            "prompt is too long: 9 > 8",
        ),
        (
            413,
            "request_too_large",
            "Request exceeds the maximum size",
            413,
            "Request exceeds the maximum size",
        ),
        (500, "api_error", "Internal server error", 500, "Internal server error"),
        (401, "authentication_error", f"invalid x-api-key {rig.KEY}", 502, "own credentials"),
        (400, "invalid_request_error", "Your credit balance is too low", 502, "own credentials"),
    ],
)
def test_refusal_keeps_its_status_unless_it_is_about_us(
    gateway: LocalGateway,
    provider: MessagesProvider,
    face: Face,
    status: int,
    kind: str,
    said: str,
    given: int,
    text: str,
) -> None:
    provider.script(MESSAGES, rig.refused(status, kind, said))
    answer = post(gateway, face.path, body_of(face))
    assert text in assert_error(answer, face.dialect, given) and rig.KEY not in answer.text


def test_busy_provider_is_asked_again_after_the_pause_that_it_wants(
    gateway: LocalGateway, provider: MessagesProvider
) -> None:
    provider.script(
        MESSAGES,
        rig.refused(529, "overloaded_error", "Overloaded", {"Retry-After": "1"}),
        rig.said(stream=False),
    )
    began = time.monotonic()
    answer = post(gateway, "/v1/messages", body_of(FACES["anthropic messages"], stream=False))
    assert answer.status == 200 and time.monotonic() - began >= 1
    assert answer.headers.get("X-Ollama-Proxy-Attempts") == "claude: 529, claude: ok"


def test_limit_on_what_is_spent_is_told_at_once(
    gateway: LocalGateway, provider: MessagesProvider
) -> None:
    spent = {"details": {"error_code": "enforced_spend_limit_reached"}}
    provider.script(
        MESSAGES, rig.refused(429, "rate_limit_error", "Spent", {"Retry-After": "1"}, **spent)
    )
    answer = post(gateway, "/v1/messages", body_of(FACES["anthropic messages"]))
    assert assert_error(answer, ANTHROPIC, 429) == "Spent" and len(provider.asked) == 1


@each_face
def test_client_that_leaves_ends_the_answer_at_the_provider(
    gateway: LocalGateway, provider: MessagesProvider, request_id: str, face: Face
) -> None:
    provider.script(MESSAGES, [*rig.streamed(list(rig.events(HELLO))[:5]), WaitForPeerClose()])
    headers = {"X-Request-Id": request_id}
    with gateway.open(face.path, body_of(face), headers=headers) as client:
        assert client.read_some()
    wait_until(lambda: "peer_closed" in [event.kind for event in provider.events], 5)
    assert access_line(gateway, request_id)["state"] == "client_gone"


def test_client_hears_of_a_provider_that_only_pings(provider: MessagesProvider) -> None:
    ping = rig.streamed([{"type": "ping"}])[1:]
    provider.script(
        MESSAGES, [*rig.streamed([]), *([Wait(0.05), *ping] * 10), *rig.said(stream=True)[1:]]
    )
    face = FACES["anthropic messages"]
    with gateway_before(provider, heartbeat_s=0.1) as gateway:
        answer = post(gateway, face.path, body_of(face))
    assert (
        answer.body.count(PING) >= 2
        and b"Hel" in answer.body
        and answer.body.endswith(b'{"type":"message_stop"}\n\n')
    )


# Names and rules.


@pytest.mark.parametrize("name", [MODEL, f"claude:{MODEL}", f"claude/{MODEL}"])
def test_model_is_known_by_its_name_with_and_without_its_provider(
    gateway: LocalGateway, provider: MessagesProvider, name: str
) -> None:
    body = {"model": name, "messages": ASKED, "max_tokens": 100}
    assert post(gateway, "/v1/messages", body).json()["model"] == name
    assert asked_of(provider)["model"] == MODEL


def test_rules_of_the_operator_count_there_too(
    gateway: LocalGateway, provider: MessagesProvider
) -> None:
    body = {"model": "helper", "messages": ASKED, "options": {"num_predict": 9000}, "stream": False}
    answer = post(gateway, "/api/chat", body)
    assert (answer.status, answer.json()["model"]) == (200, "helper")
    seen = asked_of(provider)
    assert (seen["model"], seen["max_tokens"], seen["thinking"]["type"]) == (
        MODEL,
        4000,
        "adaptive",
    )


def test_refusal_names_the_model_as_the_client_does(
    gateway: LocalGateway, provider: MessagesProvider
) -> None:
    provider.script(MESSAGES, rig.refused(404, "not_found_error", f"model: {MODEL}"))
    answer = post(gateway, "/api/chat", {"model": "helper", "messages": ASKED})
    assert "helper" in assert_error(answer, "native", 404) and MODEL not in answer.text


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
def test_models_of_the_provider_are_listed(gateway: LocalGateway, path: str) -> None:
    assert MODEL in get(gateway, path).text


def test_what_a_model_can_do_is_shown(gateway: LocalGateway) -> None:
    shown = post(gateway, "/api/show", {"model": MODEL}).json()
    assert sorted(shown["capabilities"]) == ["completion", "thinking", "tools", "vision"]


def test_what_has_no_switch_is_not_hidden(
    gateway: LocalGateway, provider: MessagesProvider
) -> None:
    body = {
        "model": MODEL,
        "messages": ASKED,
        "temperature": 0.2,
        "response_format": {"type": "json_object"},
    }
    answer = post(gateway, "/v1/chat/completions", body)
    # The last one, because this answer is not JSON.
    assert (
        answer.headers.get("X-Ollama-Proxy-Approximated") == "temperature, format, response_format"
    )
    assert "temperature" not in asked_of(provider) and "JSON" in asked_of(provider)["system"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed"])
def test_embeddings_are_refused_in_ollamas_words(
    gateway: LocalGateway, provider: MessagesProvider, path: str
) -> None:
    answer = post(gateway, path, {"model": MODEL, "input": "x"})
    assert (
        answer.status == 400
        and f"{MODEL} does not support embeddings" in answer.text
        and not provider.asked
    )


# Anthropic's own client.


def test_own_client_reaches_the_provider_unharmed(
    client: anthropic.Anthropic, provider: MessagesProvider
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    sent: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 500,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stop_sequences": ["END"],
        "tools": [WEATHER],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        "metadata": {"user_id": "team-7"},
        "service_tier": "standard_only",
        "cache_control": {"type": "ephemeral"},
    }
    answer = client.messages.create(**sent)
    assert (answer.content[0].type, answer.stop_reason, answer.usage.input_tokens) == (
        "text",
        "end_turn",
        12,
    )
    assert asked_of(provider) == sent | {"stream": False}


def test_own_client_runs_a_loop_of_tools_with_thinking(
    client: anthropic.Anthropic, provider: MessagesProvider
) -> None:
    provider.script(
        MESSAGES, rig.said([THOUGHT, *USES], "tool_use", stream=True), rig.said(stream=True)
    )
    options: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 3000,
        "tools": [WEATHER],
        "thinking": {"type": "adaptive"},
    }
    with client.messages.stream(messages=ASKED, **options) as stream:
        first = stream.get_final_message()
    assert [block.type for block in first.content] == ["thinking", "tool_use", "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "21 C"}
        for block in first.content
        if block.type == "tool_use"
    ]
    history: Any = [*ASKED, first.to_param(), {"role": "user", "content": results}]
    with client.messages.stream(messages=history, **options) as stream:
        assert stream.get_final_text() == "Hello!"
    assert asked_of(provider)["messages"][1]["content"] == [THOUGHT, *USES]


@pytest.mark.parametrize(
    ("status", "kind", "text", "error"),
    [
        (404, "not_found_error", f"model: {MODEL}", anthropic.NotFoundError),
        (400, "invalid_request_error", "prompt is too long: 9 > 8", anthropic.BadRequestError),
        (413, "request_too_large", "Too large", anthropic.APIStatusError),
        (500, "api_error", "Oops", anthropic.InternalServerError),
    ],
)
def test_own_client_gets_the_errors_that_it_knows(
    client: anthropic.Anthropic,
    provider: MessagesProvider,
    status: int,
    kind: str,
    text: str,
    error: type[anthropic.APIStatusError],
) -> None:
    provider.script(MESSAGES, rig.refused(status, kind, text))
    with pytest.raises(error) as found:
        client.messages.create(model=MODEL, max_tokens=10, messages=ASKED)
    assert (found.value.status_code, found.value.type) == (status, kind)


def test_own_client_raises_when_a_stream_breaks(
    client: anthropic.Anthropic, provider: MessagesProvider
) -> None:
    provider.script(
        MESSAGES, rig.streamed([*list(rig.events(HELLO))[:5], rig.error("api_error", "Oops")])
    )
    with (
        pytest.raises(anthropic.APIStatusError, match="Oops"),
        client.messages.stream(model=MODEL, max_tokens=10, messages=ASKED) as stream,
    ):
        stream.get_final_message()


def test_own_client_sees_no_difference_between_gateway_and_provider(
    client: anthropic.Anthropic, provider: MessagesProvider
) -> None:
    blocks = [{"type": "text", "text": "Wait."}, *USES]
    provider.script(MESSAGES, rig.said(blocks, "tool_use", stream=True))
    seen = []
    with anthropic.Anthropic(base_url=provider.url, api_key="any", max_retries=0) as direct:
        for each in (client, direct):
            with each.messages.stream(
                model=MODEL, max_tokens=100, messages=ASKED, tools=[WEATHER]
            ) as stream:
                seen.append(stream.get_final_message())
    through, past = ([block.to_dict() for block in message.content] for message in seen)
    assert through == past and seen[0].stop_reason == seen[1].stop_reason == "tool_use"
    assert [message.usage.output_tokens for message in seen] == [6, 6]


def test_own_client_lists_the_models(client: anthropic.Anthropic) -> None:
    assert MODEL in [model.id for model in client.models.list()]
