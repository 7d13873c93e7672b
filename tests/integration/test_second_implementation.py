"""A provider that somebody else has written: LiteLLM's proxy behind the gateway, as kind
openai and as kind anthropic.

What it has to say comes from the built-in demo, so that the same words arrive however they went.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.face import TOKEN, frames, named_frames
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, request
from tests.rig.leaks import worker_details
from tests.rig.provider import upstream_entry
from tests.rig.second_implementation import KEY, SecondImplementation
from tests.rig.tiers import in_long
from tests.sdk.samples import WEATHER

pytestmark = in_long  # its start takes ten seconds, and its packages a minute

#: Our name of its models, by the kind that it is spoken to as.
KINDS = {"openai": "lab", "anthropic": "lab-claude"}
each_kind = pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])
SAID = "You said (您说): hello"
DIALECTS = {"native": "/api/chat", "openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
each_dialect = pytest.mark.parametrize(("dialect", "path"), DIALECTS.items(), ids=DIALECTS)


@pytest.fixture(scope="module")
def second(demo_gateway: Gateway) -> Iterator[SecondImplementation]:
    models = {"lab": "demo", "vectors": "demo", "absent": "not-there"}
    with SecondImplementation(models, f"{demo_gateway.url}/v1", TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(second: SecondImplementation) -> Iterator[Gateway]:
    common = {"api_key_env": "SECOND_KEY"}
    upstreams: list[dict[str, Any]] = [
        common | upstream_entry(second.base_url, name="second"),
        common
        | upstream_entry(second.url, name="claude", kind="anthropic", models={"lab-claude": "lab"}),
        common | upstream_entry(second.base_url, name="other", models={"unknown": "of-nobody"}),
    ]
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams}
    with Gateway(config, env={"SECOND_KEY": KEY}) as running:
        yield running
        wait_until(lambda: not busy(running), 5, "something is still going on")
        assert KEY not in running.output()


def busy(gateway: Gateway) -> list[dict[str, Any]]:
    """The workers that still do something for somebody."""
    details = worker_details(gateway, TOKEN).values()
    return [each for each in details if each["in_flight"] or each["upstream_connections"]["active"]]


def ask(gateway: Gateway, path: str, model: str, **fields: Any) -> Answer:
    limit = {"max_tokens": 200} if path == DIALECTS["anthropic"] else {}
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]} | limit | fields
    return request(gateway.url, "POST", path, body, bearer(TOKEN), timeout=30)


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


@each_way
@each_kind
def test_native_chat(gateway: Gateway, model: str, stream: bool) -> None:
    told = lines(ask(gateway, "/api/chat", model, stream=stream))
    assert "".join(line["message"]["content"] for line in told).endswith(SAID)
    assert (told[-1]["done_reason"], told[-1]["model"]) == ("stop", model)
    assert told[-1]["prompt_eval_count"] > 0 and told[-1]["eval_count"] > 10
    assert len(told) > 10 or not stream


@each_way
@each_kind
def test_openai_chat(gateway: Gateway, model: str, stream: bool) -> None:
    answer = ask(
        gateway,
        "/v1/chat/completions",
        model,
        stream=stream,
        stream_options={"include_usage": True},
    )
    if not stream:
        [choice] = answer.json()["choices"]
        said, finish, usage = (
            choice["message"]["content"],
            choice["finish_reason"],
            answer.json()["usage"],
        )
    else:
        *chunks, end = frames(answer.body)
        assert end == "[DONE]"
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        said = "".join(choice["delta"].get("content") or "" for choice in choices)
        [finish] = {choice.get("finish_reason") for choice in choices} - {None}
        usage = chunks[-1]["usage"]
    assert said.endswith(SAID)
    assert (finish, usage["completion_tokens"] > 10) == ("stop", True)


@each_way
@each_kind
def test_anthropic_messages(gateway: Gateway, model: str, stream: bool) -> None:
    answer = ask(gateway, "/v1/messages", model, stream=stream)
    if not stream:
        said, reason = answer.json()["content"][0]["text"], answer.json()["stop_reason"]
    else:
        events = named_frames(answer.body)
        assert events[-1]["type"] == "message_stop"
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        said = "".join(delta["text"] for delta in deltas)
        [reason] = [
            event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"
        ]
    assert said.endswith(SAID)
    assert reason == "end_turn"


@each_kind
def test_generate(gateway: Gateway, model: str) -> None:
    body = {"model": model, "prompt": "hello", "options": {"num_predict": 4}}
    told = lines(request(gateway.url, "POST", "/api/generate", body, bearer(TOKEN), timeout=30))
    assert "".join(line["response"] for line in told).startswith("This answer is")
    assert told[-1]["done_reason"] == "length"


@each_way
@each_kind
def test_a_tool_is_called_and_its_result_goes_back(
    gateway: Gateway, model: str, stream: bool
) -> None:
    told = lines(ask(gateway, "/api/chat", model, tools=[WEATHER], stream=stream))
    [call] = [call for line in told for call in line["message"].get("tool_calls", ())]
    assert (call["function"]["name"], list(call["function"]["arguments"])) == (
        "get_weather",
        ["city"],
    )
    history = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": "18 degrees"},
    ]
    again = lines(
        ask(gateway, "/api/chat", model, messages=history, tools=[WEATHER], stream=stream)
    )
    assert again[-1]["done_reason"] == "stop"
    assert "".join(line["message"]["content"] for line in again)


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_vectors(gateway: Gateway, path: str) -> None:
    body = {"model": "vectors", "input": ["one", "two"]}
    answer = request(gateway.url, "POST", path, body, bearer(TOKEN), timeout=30).json()
    vectors = answer.get("embeddings") or [row["embedding"] for row in answer["data"]]
    assert [len(vector) for vector in vectors] == [64, 64]
    assert vectors[0] != vectors[1]


def test_its_models_are_listed(gateway: Gateway) -> None:
    native = request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).json()["models"]
    openai = request(gateway.url, path="/v1/models", headers=bearer(TOKEN)).json()["data"]
    expected = {"lab", "vectors", "absent", "lab-claude", "unknown"}
    assert {row["name"].removesuffix(":latest") for row in native} == expected
    assert {row["id"] for row in openai} == expected


@each_way
@each_dialect
def test_a_model_that_it_does_not_have(
    gateway: Gateway, second: SecondImplementation, dialect: str, path: str, stream: bool
) -> None:
    """LiteLLM says 400 for it."""
    answer = ask(gateway, path, "unknown", stream=stream)
    text = assert_error(answer, dialect, answer.status)
    assert answer.status in (400, 404)
    assert KEY not in answer.text and second.url not in text


@each_way
@each_dialect
def test_a_model_that_its_own_upstream_does_not_have(
    gateway: Gateway, dialect: str, path: str, stream: bool
) -> None:
    assert "not found" in assert_error(ask(gateway, path, "absent", stream=stream), dialect, 404)


@each_dialect
def test_its_refusal_of_our_key_is_not_the_clients_fault(
    second: SecondImplementation, dialect: str, path: str
) -> None:
    lab = upstream_entry(second.base_url, name="second", api_key_env="SECOND_KEY")
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": [lab | {"models": ["lab"]}]}
    with Gateway(config, env={"SECOND_KEY": "no-key-at-all"}, workers=1) as gateway:
        answer = ask(gateway, path, "lab")
    assert answer.status != 401
    assert_error(answer, dialect, answer.status)
