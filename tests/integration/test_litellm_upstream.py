"""LiteLLM as an upstream: its models in every face of the gateway, in front of a
provider on this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.golden.face import frames
from tests.rig import SSE, calls, provider
from tests.rig.calls import (
    DIALECT_FACES,
    TOKEN,
    Face,
    access_line,
    ask,
    is_well_ended,
    last_error,
    whole,
)
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import Chunk, Flood, Head, Json, Reset, Script, Wait, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.http_client import Answer, bearer, open_stream
from tests.rig.leaks import LeakCheck, worker_details
from tests.rig.provider import CHAT, HELLO, Provider, chunk, error, refused, said, streamed
from tests.rig.tiers import allowed
from tests.sdk.samples import PNG, QUESTION, WEATHER

KEY = "sk-" + "lab0" * 6
PROMPT = "a prompt that no log may hold"

#: One for each HTTP client that LiteLLM has: OpenAI's own, and that of all other providers.
CLIENTS = ("openai/m", "deepseek/m")
each_client = pytest.mark.parametrize("model", CLIENTS)


def asking(faces: Mapping[str, Face], model: str = CLIENTS[0]) -> dict[str, Face]:
    """The same faces with another model."""
    return {name: face._replace(body=face.body | {"model": model}) for name, face in faces.items()}


FACES, EMBEDDINGS = asking(calls.FACES), asking(calls.EMBEDDINGS)
each_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES)
each_dialect = pytest.mark.parametrize("face", asking(DIALECT_FACES).values(), ids=DIALECT_FACES)
#: Other names for them, where there is little patience.
HURRIED = ("hurried", "hurried-too")

#: Seconds between a client's leaving and the close of the connection to the provider.
NOTICED_S = allowed(1)


def upstreams_of(server: Provider) -> list[dict[str, Any]]:
    """One that takes any name; one with a list and little patience; one that is not there."""
    with Provider() as gone:
        nowhere = gone.base_url
    common = {"kind": "litellm", "api_key_env": "LAB_KEY"}
    models = {
        "fast": "openai/gpt-4o-mini",
        "own": {"id": "openai/x", "capabilities": ["completion", "tools"]},
    }
    models |= dict(zip(HURRIED, CLIENTS, strict=True))
    timeouts = {"first_byte_s": 0.6, "idle_s": 0.6}
    return [
        common | {"name": "lite", "base_url": server.base_url},
        common
        | {"name": "listed", "base_url": server.base_url, "models": models, "timeouts": timeouts},
        common | {"name": "gone", "base_url": nowhere, "models": {"nowhere": "openai/x"}},
    ]


shared_server = module_fixture(lambda: Provider(key=KEY))


@pytest.fixture
def server(shared_server: Provider) -> Provider:
    """The provider, which does nothing special yet."""
    shared_server.clear()
    return shared_server


def busy(gateway: Gateway) -> bool:
    """Whether any worker still does something for somebody."""
    details = worker_details(gateway, TOKEN).values()
    return any(each["in_flight"] or each["upstream_connections"]["active"] for each in details)


@pytest.fixture(scope="module")
def shared_gateway(shared_server: Provider) -> Iterator[Gateway]:
    """One gateway for the module; its tests leave nothing behind, and what they failed with
    is nowhere to be read."""
    settings = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": upstreams_of(shared_server),
        "stream": {"heartbeat_s": 1},
    }
    with Gateway(settings, env={"LAB_KEY": KEY}, workers=1) as running:
        for _ in range(6):
            for model in CLIENTS:
                assert chat(running, model).status == 200
        # LiteLLM keeps connections of its own.
        check = LeakCheck(running, shared_server, idle=24)
        yield running
        wait_until(lambda: not busy(running), 5, "something is still going on")
        check.verify()
        written = running.output() + "".join(
            file.read_text() for file in running.logs_directory.iterdir()
        )
        assert not [
            text
            for text in (KEY, PROMPT, "Traceback", "LiteLLM.Info", "internal_error")
            if text in written
        ]


@pytest.fixture
def gateway(shared_gateway: Gateway, server: Provider) -> Gateway:
    return shared_gateway


def chat(
    gateway: Gateway, model: str = "openai/m", path: str = "/v1/chat/completions", **fields: Any
) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], **fields}
    return gateway.ask(path, body, timeout=20)


def native(gateway: Gateway, **fields: Any) -> Answer:
    return chat(gateway, path="/api/chat", **fields)


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


# Answers.


@each_face
@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
def test_every_face_reaches_it(
    gateway: Gateway, server: Provider, face: Face, stream: bool
) -> None:
    answer = whole(gateway, face, stream=stream)
    assert (answer.status, answer.complete) == (200, True)
    assert not stream or is_well_ended(answer.body, face)
    assert "Hell" in answer.text
    [body] = server.bodies()
    assert (body["model"], body.get("stream", False)) == ("m", stream)


@pytest.mark.parametrize("face", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_vectors(gateway: Gateway, server: Provider, face: Face) -> None:
    answer = gateway.ask(face.path, face.body | {"input": ["a", "b"]}).json()
    vectors = answer.get("embeddings") or [row["embedding"] for row in answer["data"]]
    assert vectors[0] in ([3.0, 4.0, 0.0], [0.6, 0.8, 0.0])
    assert (len(vectors), server.bodies(provider.EMBEDDINGS)[0]["input"]) == (2, ["a", "b"])


def test_vectors_that_the_provider_did_not_shorten_are_shortened(
    gateway: Gateway, server: Provider
) -> None:
    body = {"model": "openai/m", "input": "a", "dimensions": 2}
    answer = gateway.ask("/api/embed", body).json()
    assert answer["embeddings"] == [[0.6, 0.8]]


@each_client
@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
def test_counts_are_those_of_the_provider(
    gateway: Gateway, server: Provider, model: str, stream: bool
) -> None:
    last = lines(native(gateway, model=model, stream=stream))[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 7, 3)


def test_counts_that_the_provider_did_not_give_are_not_made_up(
    gateway: Gateway, server: Provider
) -> None:
    server.script(CHAT, said(stream=True, usage_at=provider.NOWHERE))
    assert not lines(native(gateway, stream=True))[-1].get("eval_count")


@each_client
@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
def test_thinking_and_parallel_tools(
    gateway: Gateway, server: Provider, model: str, stream: bool
) -> None:
    calls = [
        provider.call("f", {"city": "Paris"}, "call_a"),
        provider.call("f", {"city": "北京"}, "call_b"),
    ]
    server.script(CHAT, said("", stream=stream, thinking="Let me see.", calls=calls))
    told = [
        line["message"]
        for line in lines(native(gateway, model=model, stream=stream, tools=[WEATHER]))
    ]
    assert "".join(message.get("thinking", "") for message in told) == "Let me see."
    called = [
        call["function"]["arguments"] for message in told for call in message.get("tool_calls", ())
    ]
    assert called == [{"city": "Paris"}, {"city": "北京"}]
    assert server.bodies()[0]["tools"][0]["function"]["name"] == "get_weather"


def test_a_round_of_tools_goes_back(gateway: Gateway, server: Provider) -> None:
    history = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "", "tool_calls": [provider.call("f", {"city": "Paris"})]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ]
    assert chat(gateway, messages=history, tools=[WEATHER]).status == 200
    _, assistant, result = server.bodies()[0]["messages"]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    assert (result["tool_call_id"], result["content"]) == ("call_1", "18 degrees")


def test_an_image_goes_as_one(gateway: Gateway, server: Provider) -> None:
    message = {"role": "user", "content": "Look", "images": [PNG]}
    assert native(gateway, messages=[message], stream=False).status == 200
    parts = server.bodies()[0]["messages"][0]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    assert base64.b64decode(url.partition(",")[2]) == base64.b64decode(PNG)


def test_parameters_go_on_and_those_that_a_model_lacks_do_not(
    gateway: Gateway, server: Provider
) -> None:
    options = {"temperature": 0.5, "num_predict": 9, "stop": ["END"], "num_ctx": 4096, "top_k": 3}
    assert native(gateway, options=options, think=True, stream=False).status == 200
    body = server.bodies()[0]
    assert {name for name in body if name not in ("model", "messages", "stream")} == {
        "temperature",
        "max_tokens",
        "stop",
    }


def test_think_is_passed_on_where_a_model_has_it(gateway: Gateway, server: Provider) -> None:
    assert (
        native(gateway, model="deepseek/deepseek-reasoner", think=True, stream=False).status == 200
    )
    assert server.bodies()[0]["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize(("model", "has_switch"), [("openai/m", True), ("openai/gpt-4", False)])
def test_a_schema_reaches_the_model(
    gateway: Gateway, server: Provider, model: str, has_switch: bool
) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    assert native(gateway, model=model, format=schema, stream=False).status == 200
    body = server.bodies()[0]
    assert ("response_format" in body, '"properties"' in body["messages"][0]["content"]) == (
        has_switch,
        not has_switch,
    )


def test_the_same_piece_again_and_again_is_no_failure(gateway: Gateway, server: Provider) -> None:
    """LiteLLM takes it for a model that has lost its way."""
    again = [chunk({"content": "-----"}) for _ in range(300)]
    server.script(CHAT, streamed([*again, chunk(finish="stop"), chunk({}, usage=provider.USAGE)]))
    told = lines(native(gateway, stream=True))
    assert sum(len(line["message"]["content"]) for line in told) == 1500
    assert (told[-1]["done"], told[-1]["eval_count"]) == (True, 3)


# Names.


@pytest.mark.parametrize(
    "name",
    [
        *(
            "datascope/qwen-turbo",
            "datascope/qwen-plus",
            "deepseek/deepseek-chat",
            "siliconflow/Yi-34B-Chat",
        ),
        *("volcengine/doubao-lite-4k", "of-nobody/x:y"),
    ],
)
def test_any_name_is_routed_without_a_mapping(
    gateway: Gateway, server: Provider, name: str
) -> None:
    answer = gateway.ask("/api/generate", {"model": name, "prompt": "hi"})
    assert {line["model"] for line in lines(answer)} == {name}
    assert server.bodies()[0]["model"].endswith(name.partition("/")[2])


@pytest.fixture(scope="module")
def keyed(shared_server: Provider) -> Iterator[Gateway]:
    """A gateway where LiteLLM finds addresses and keys by itself, in its own variables."""
    places = dict.fromkeys(("OPENAI_BASE_URL", "DEEPSEEK_API_BASE"), shared_server.base_url)
    keys = dict.fromkeys(("OPENAI_API_KEY", "DEEPSEEK_API_KEY"), KEY)
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": [{"name": "lite", "kind": "litellm"}],
    }
    with Gateway(config, env=places | keys, workers=1) as running:
        yield running


@pytest.mark.parametrize(
    "name", ["gpt-4", "gpt-3.5-turbo", "deepseek/deepseek-chat", "openai/of-mine"]
)
def test_any_name_is_routed_with_the_keys_of_the_environment(
    keyed: Gateway, server: Provider, name: str
) -> None:
    assert chat(keyed, name).json()["model"] == name
    assert name.endswith(server.bodies()[0]["model"])


@pytest.mark.parametrize("name", ["of-nobody", "of-nobody/x", "claude-3-opus"])
def test_a_name_of_nobody_is_not_found(keyed: Gateway, server: Provider, name: str) -> None:
    """Also a short name that LiteLLM does not have."""
    assert "not found" in assert_error(native(keyed, model=name), "native", 404)
    assert server.bodies() == []


@pytest.mark.parametrize("name", ["lite:gpt-4", "lite/gpt-4"])
def test_its_own_name_may_stand_in_front(gateway: Gateway, server: Provider, name: str) -> None:
    assert chat(gateway, name).json()["model"] == name
    assert server.bodies()[0]["model"] == "gpt-4"


@each_dialect
def test_an_address_is_no_name(gateway: Gateway, server: Provider, face: Face) -> None:
    body = face.body | {"model": f"huggingface/{server.url}/x", "stream": False}
    answer = gateway.ask(face.path, body)
    assert "invalid model name" in assert_error(answer, face.dialect, 400)
    assert server.bodies() == []


def test_nothing_of_a_request_changes_where_it_goes(gateway: Gateway, server: Provider) -> None:
    with Provider() as elsewhere:
        fields = {name: elsewhere.base_url for name in ("api_base", "base_url", "proxy")}
        fields |= {
            "api_key": "sk-other",
            "custom_llm_provider": "anthropic",
            "fallbacks": ["openai/other"],
        }
        fields |= {
            "mock_response": "made up",
            "extra_headers": {"Authorization": "Bearer sk-other"},
        }
        fields |= {
            "extra_body": {"model": "other"},
            "num_retries": 9,
            "metadata": {"model_group": "x"},
        }
        answer = chat(gateway, **fields)
        assert answer.json()["choices"][0]["message"]["content"] == HELLO
        assert elsewhere.requests == []
    assert server.bodies() == [{"model": "m", "messages": [{"role": "user", "content": PROMPT}]}]
    assert server.requests[0].header("authorization") == f"Bearer {KEY}"


def test_the_models_of_the_configuration_are_listed(gateway: Gateway, server: Provider) -> None:
    rows = gateway.ask("/api/tags").json()["models"]
    shown = gateway.ask("/api/show", {"model": "fast"}).json()
    assert chat(gateway, "fast").status == 200
    assert {row["name"].removesuffix(":latest") for row in rows} == {
        "fast",
        "own",
        "nowhere",
        *HURRIED,
    }
    assert {"tools", "vision"} <= set(shown["capabilities"])
    assert server.bodies()[0]["model"] == "gpt-4o-mini"


# Failures.


@pytest.mark.parametrize(
    ("model", "stream"), list(zip(CLIENTS, [False, True], strict=True)), ids=["single", "stream"]
)
@pytest.mark.parametrize(
    ("status", "seen", "said_by_it"),
    [
        (400, 400, True),
        (401, 502, False),
        (402, 502, False),
        (403, 502, False),
        (404, 502, False),
        (422, 400, True),
        (429, 429, True),
        (500, 502, True),
        (503, 503, True),
    ],
)
def test_what_the_provider_refuses(
    gateway: Gateway,
    server: Provider,
    model: str,
    status: int,
    seen: int,
    said_by_it: bool,
    stream: bool,
) -> None:
    text = f"the provider says no to {KEY} at {server.base_url}"
    server.script(CHAT, refused(status, text, {"Retry-After": "70"}))
    answer = chat(gateway, model, stream=stream)
    told = assert_error(answer, "openai", seen)
    assert ("the provider says no" in told) == said_by_it
    assert KEY not in answer.text and server.base_url not in answer.text
    assert seen != 429 or answer.headers.get("retry-after") == "70"


@each_client
def test_a_model_that_the_provider_does_not_have(
    gateway: Gateway, server: Provider, model: str
) -> None:
    server.script(CHAT, refused(404, "The model `m` does not exist", code="model_not_found"))
    assert "not found" in assert_error(chat(gateway, model), "openai", 404)


@each_client
def test_a_prompt_that_is_too_long(gateway: Gateway, server: Provider, model: str) -> None:
    text = "This model's maximum context length is 10 tokens"
    server.script(CHAT, refused(400, text, code="context_length_exceeded"))
    answer = chat(gateway, model)
    assert "maximum context length" in assert_error(answer, "openai", 400)
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@each_client
@pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
@pytest.mark.parametrize(
    "script",
    [
        [Reset()],
        [Json({"detail": "?"})],
        [Head(200, {"Content-Type": "text/html"}), Chunk(b"<html>x</html>")],
    ],
    ids=["reset", "no answer", "a page"],
)
def test_what_is_no_answer(
    gateway: Gateway, server: Provider, model: str, stream: bool, script: Script
) -> None:
    server.script(CHAT, script)
    answer = chat(gateway, model, stream=stream)
    if answer.status == 200:
        assert last_error(answer.body, FACES["openai chat"])
    else:
        assert_error(answer, "openai", 502)


@each_dialect
@each_client
@pytest.mark.parametrize(
    "end",
    [{"done": False}, {"cut": True}],
    ids=["no finish", "cut"],
)
def test_a_stream_that_is_not_complete(
    gateway: Gateway, server: Provider, face: Face, model: str, end: dict[str, bool]
) -> None:
    server.script(CHAT, streamed([chunk({"content": "Hel"})], **end))
    answer = whole(gateway, face._replace(body=face.body | {"model": model}))
    if face.dialect == "native":
        assert lines_of(answer.body)[-1].keys() == {"error"}
    else:
        assert "Hel" in answer.text and last_error(answer.body, face)


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def test_an_error_in_the_middle(gateway: Gateway, server: Provider) -> None:
    server.script(
        CHAT, streamed([chunk({"content": "Hel"}), error("boom", "server_error")], done=False)
    )
    answer = chat(gateway, stream=True)
    assert frames(answer.body)[0]["choices"][0]["delta"]["content"] in ("", "Hel")
    assert "boom" in last_error(answer.body, FACES["openai chat"])


def test_a_provider_that_is_not_there(gateway: Gateway) -> None:
    answer = chat(gateway, "nowhere")
    assert_error(answer, "openai", 503)
    assert "127.0.0.1" not in answer.text and "openai/x" not in answer.text


def test_a_provider_that_needs_another_package(gateway: Gateway) -> None:
    """LiteLLM logs a traceback of it."""
    assert_error(chat(gateway, "vertex_ai/gemini-pro"), "openai", 502)


def test_no_tools_for_a_model_without(gateway: Gateway, server: Provider) -> None:
    answer = chat(gateway, "perplexity/sonar", tools=[WEATHER])
    assert "does not support tools" in assert_error(answer, "openai", 400)
    assert server.bodies() == []


def test_no_suffix(gateway: Gateway, server: Provider) -> None:
    body = {"model": "openai/m", "prompt": "a", "suffix": "b"}
    answer = gateway.ask("/api/generate", body)
    assert "does not support insert" in assert_error(answer, "native", 400)


# Time.


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([WaitForPeerClose()], "begin to answer"),
        (
            [
                Head(200, SSE),
                Chunk(provider.frames([chunk({"content": "Hel"})], done=False)),
                WaitForPeerClose(),
            ],
            "silent",
        ),
    ],
    ids=["first byte", "idle"],
)
@pytest.mark.parametrize("model", HURRIED)
def test_limits_count(
    gateway: Gateway, server: Provider, model: str, script: Script, says: str
) -> None:
    server.script(CHAT, script)
    answer = chat(gateway, model, stream=True)
    assert says in answer.text
    server.wait_peer_closed(server.wait_for_request(path=CHAT).connection, seconds=2)


def test_signs_of_life_while_nothing_comes(gateway: Gateway, server: Provider) -> None:
    server.script(CHAT, [Wait(1.2), *said(stream=True)])
    answer = chat(gateway, stream=True)
    assert answer.text.startswith(": keep-alive") and "Hell" in answer.text


def test_signs_of_life_while_a_long_call_comes(gateway: Gateway, server: Provider) -> None:
    pieces = list(provider.fragments(0, provider.call("f", {"text": "x" * 50}), size=10))
    told = [chunk({"tool_calls": [piece]}) for piece in pieces]
    script: Script = [Head(200, SSE)]
    for each in told:
        script = [*script, Chunk(provider.frames([each], done=False)), Wait(0.3)]
    server.script(CHAT, [*script, Chunk(provider.frames([chunk(finish="tool_calls")]))])
    answer = chat(gateway, stream=True, tools=[WEATHER])
    assert answer.text.startswith(": keep-alive") and "xxx" in answer.text


@pytest.mark.parametrize(
    ("field", "value", "goes_on"), [("service_tier", "flex", True), ("metadata", {"a": "b"}, False)]
)
def test_what_has_no_effect_is_said(
    gateway: Gateway, server: Provider, field: str, value: Any, goes_on: bool
) -> None:
    answer = chat(gateway, **{field: value})
    assert (
        field in server.bodies()[0],
        field in (answer.headers.get("x-ollama-proxy-ignored") or ""),
    ) == (
        goes_on,
        not goes_on,
    )


def test_streams_go_on_beside_each_other(gateway: Gateway, server: Provider) -> None:
    """LiteLLM blocks; here it may only block its own greenlet."""
    words = [Chunk(provider.frames([chunk({"content": "word "})], done=False)), Wait(0.1)] * 10
    end = Chunk(provider.frames([chunk(finish="stop")]))
    server.script(CHAT, [Head(200, SSE), *words, end])
    began = time.monotonic()
    with ExitStack() as opened:
        asked = [ask(gateway.url, FACES["openai chat"], wait_for_head=False) for _ in range(20)]
        bodies = [opened.enter_context(stream).read_all(15) for stream in asked]
    assert time.monotonic() - began < 6  # one after the other it is 20 s
    assert all(
        body.count(b"word") == 10 and is_well_ended(body, FACES["openai chat"]) for body in bodies
    )


@each_client
def test_calls_beside_each_other_share_connections(
    gateway: Gateway, server: Provider, model: str
) -> None:
    before, at_once = server.connections_open, 6
    with ThreadPoolExecutor(at_once) as threads:
        answers = list(threads.map(lambda _: chat(gateway, model), range(20 * at_once)))
    assert {answer.status for answer in answers} == {200}
    assert server.connections_open <= before + at_once * gateway.workers


# Clients that leave.

BEFORE_HEAD: Script = [WaitForPeerClose()]
BETWEEN_TOKENS: Script = [
    Head(200, SSE),
    Chunk(provider.frames([chunk({"content": "Hel"})], done=False)),
    WaitForPeerClose(),
]


def leave(
    gateway: Gateway, server: Provider, face: Face, request_id: str, *, stream: bool, read: bool
) -> None:
    with ask(gateway.url, face, request_id, stream=stream, wait_for_head=False) as open_answer:
        connection = server.wait_for_request(path=CHAT).connection
        if read:
            assert open_answer.read_some()
        left_at = time.monotonic()
    assert server.wait_peer_closed(connection) - left_at < NOTICED_S
    assert access_line(gateway, request_id)["state"] == "client_gone"


@pytest.mark.parametrize(
    ("face", "stream"), [(FACES["openai chat"], False), (FACES["anthropic messages"], True)]
)
def test_client_leaves_before_the_head(
    gateway: Gateway, server: Provider, request_id: str, face: Face, stream: bool
) -> None:
    server.script(CHAT, BEFORE_HEAD)
    leave(gateway, server, face, request_id, stream=stream, read=False)


@each_client
def test_client_leaves_between_tokens(
    gateway: Gateway, server: Provider, request_id: str, model: str
) -> None:
    face = FACES["openai chat"]
    server.script(CHAT, BETWEEN_TOKENS)
    leave(
        gateway,
        server,
        face._replace(body=face.body | {"model": model}),
        request_id,
        stream=True,
        read=True,
    )


@each_client
def test_client_leaves_that_has_stopped_reading(
    gateway: Gateway, server: Provider, request_id: str, model: str
) -> None:
    frame = provider.frames([chunk({"content": "x" * 4000})], done=False)
    server.script(CHAT, [Head(200, SSE), Flood(frame, limit_s=20)])
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    headers = bearer(TOKEN) | {"X-Request-Id": request_id}
    stream = open_stream(
        gateway.url, "POST", "/v1/chat/completions", body, headers, receive_buffer=4096
    )
    connection = server.wait_for_request(path=CHAT).connection
    sent: list[int] = []

    def is_stuck() -> bool:
        sent.append(server.bytes_sent(connection))
        return len(sent) > 20 and sent[-1] == sent[-20] > 0

    wait_until(is_stuck, 15, "the provider never had to wait for the client")
    left_at = time.monotonic()
    stream.close()
    assert server.wait_peer_closed(connection) - left_at < NOTICED_S


def test_client_leaves_vectors(gateway: Gateway, server: Provider, request_id: str) -> None:
    server.script(provider.EMBEDDINGS, [WaitForPeerClose()])
    face = EMBEDDINGS["native embed"]
    headers = bearer(TOKEN) | {"X-Request-Id": request_id}
    with open_stream(gateway.url, "POST", face.path, face.body, headers, wait_for_head=False):
        connection = server.wait_for_request(path=provider.EMBEDDINGS).connection
        left_at = time.monotonic()
    assert server.wait_peer_closed(connection) - left_at < NOTICED_S


# Those who do not use it.

_START = """
import json, sys
from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import load_settings
create_app(load_settings())
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
LAB = "{name: lab, kind: openai, base_url: 'http://127.0.0.1:9/v1'}"
LITE = "{name: lite, kind: litellm}"


@pytest.mark.parametrize(
    ("upstreams", "imported"), [([LAB], False), ([LAB, LITE], True)], ids=["absent", "configured"]
)
def test_it_is_imported_where_it_is_configured(
    tmp_path: Path, upstreams: list[str], imported: bool
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"auth: {{generate_tokens: [{TOKEN}]}}\nupstreams: [{', '.join(upstreams)}]\n"
    )
    environment = clean(os.environ) | {
        "OLLAMA_PROXY_CONFIG": str(config),
        "STATE_DIRECTORY": str(tmp_path),
    }
    output = subprocess.check_output(
        [sys.executable, "-c", _START], env=environment, cwd=PROJECT, text=True
    )
    foreign = {"litellm", "openai", "httpx", "tiktoken", "pydantic"}
    assert foreign & set(json.loads(output)) == (foreign if imported else set())


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("OLLAMA_", "LITELLM_"))
    }


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "litellm.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'litellm'\", name='litellm')\n"
    )
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": [{"name": "lite", "kind": "litellm"}],
    }
    failed = Gateway.start_expecting_failure(config, env={"PYTHONPATH": str(tmp_path)})
    assert failed.exit_code == os.EX_CONFIG
    assert "make install EXTRAS=litellm" in failed.output and "Traceback" not in failed.output


def test_a_key_for_whatever_provider_a_client_names_is_refused() -> None:
    upstream = {"name": "lite", "kind": "litellm", "api_key_env": "LAB_KEY"}
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": [upstream]}
    failed = Gateway.start_expecting_failure(config, env={"LAB_KEY": KEY})
    assert failed.exit_code == os.EX_CONFIG
    assert "api_key_env needs a base_url" in failed.output and KEY not in failed.output
