"""The official Python client of OpenAI, synchronous and asynchronous: another base URL and key, and nothing else."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.golden.blocking import Blocking
from tests.golden.cases import Case, cases
from tests.golden.face import TOKEN, forwarded
from tests.rig import NDJSON
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.replay_upstream import Replay, recording

HELLO: Any = [{"role": "user", "content": "Hello!"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
LINE = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n'
CASES = {case.name: case for case in cases("openai")}
CHATS = [case for case in CASES.values() if case.is_complete and case.path == "/v1/chat/completions"]
Open = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Open]:
    """``open_client(gateway)`` gives a client of the kind under test; it is closed with the test."""
    with ExitStack() as opened:

        def run(gateway: Gateway, **options: Any) -> Any:
            options = {"base_url": f"{gateway.url}/v1", "api_key": TOKEN, "max_retries": 0} | options
            if request.param == "sync":
                return opened.enter_context(openai.OpenAI(**options))
            client = Blocking(openai.AsyncOpenAI(**options))
            opened.callback(client.shut)
            return client

        yield run


@pytest.fixture
def client(open_client: Open, gateway: Gateway) -> Any:
    return open_client(gateway)


@pytest.fixture
def demo(open_client: Open, demo_gateway: Gateway) -> Any:
    return open_client(demo_gateway)


def replay(upstream: FaultUpstream, name: str) -> Any:
    """Answers with a recording; returns it read (its last line for a stream)."""
    row = recording(name)
    upstream.script(row.path, [Replay(row)])
    return json.loads(row.response.splitlines()[-1])


def stream_case(upstream: FaultUpstream, case: Case) -> None:
    upstream.script(case.upstream_path, [Head(200, NDJSON), Chunk(case.lines)])


def test_models(client: Any, upstream: FaultUpstream) -> None:
    names = ["tiny-test:latest", "ns/m:v1"]
    upstream.script("/api/tags", [Json({"models": [{"name": name} for name in names]})])
    listed = list(client.models.list())
    assert [(model.id, model.object, model.owned_by) for model in listed] == [(n, "model", "ollama") for n in names]


@pytest.mark.parametrize("name", ["tiny-test", "ns/m:v1", "host.example/ns/m:v1"])
def test_one_model_with_whatever_name(name: str, client: Any, upstream: FaultUpstream) -> None:
    """G13: the client escapes the slash."""
    upstream.script("/api/tags", [Json({"models": [{"name": f"{name}:latest" if ":" not in name else name}]})])
    assert client.models.retrieve(name).id == name


def test_chat(client: Any, upstream: FaultUpstream) -> None:
    recorded = replay(upstream, "chat-hello-single")
    answer = client.chat.completions.create(model="tiny-test", messages=HELLO)
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", recorded["message"]["content"])
    assert (choice.finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "tiny-test")
    assert answer.usage.completion_tokens == recorded["eval_count"]
    assert answer.usage.total_tokens == recorded["eval_count"] + recorded["prompt_eval_count"]
    assert answer._request_id


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.name)
def test_chat_stream(case: Case, client: Any, upstream: FaultUpstream) -> None:
    stream_case(upstream, case)
    chunks = list(client.chat.completions.create(**case.request, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    [expected] = case.expected_single["choices"]
    assert text == (expected["message"]["content"] or "")
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == [
        expected["finish_reason"]
    ]


@pytest.mark.parametrize("case", [one for one in CHATS if "image" not in one.name], ids=lambda case: case.name)
def test_stream_helper_puts_the_same_answer_together(case: Case, gateway: Gateway, upstream: FaultUpstream) -> None:
    """The helpers are the strictest readers: role once, dense indexes, one finish."""
    stream_case(upstream, case)
    request = {name: value for name, value in case.request.items() if name != "response_format"}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0) as client:
        with client.chat.completions.stream(**request) as stream:
            kinds = [event.type for event in stream]
            if case.expected_single["choices"][0]["finish_reason"] == "length":
                final = stream.current_completion_snapshot
            else:
                final = stream.get_final_completion()
    check_final(final, case)
    assert "chunk" in kinds


def check_final(final: Any, case: Case) -> None:
    [choice] = final.choices
    [expected] = case.expected_single["choices"]
    message = expected["message"]
    assert (choice.message.content or "") == (message["content"] or "")
    assert (choice.message.role, choice.finish_reason) == ("assistant", expected["finish_reason"])
    called = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    assert called == [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())]


@pytest.mark.parametrize("name", ["plain", "tools-parallel", "tools-missing-ids", "thinking"])
def test_asynchronous_stream_helper(name: str, gateway: Gateway, upstream: FaultUpstream) -> None:
    case = CASES[name]
    stream_case(upstream, case)

    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0) as client:
            async with client.chat.completions.stream(**case.request) as stream:
                return await stream.get_final_completion()

    check_final(asyncio.run(run()), case)


def test_reasoning_has_both_names(client: Any, upstream: FaultUpstream) -> None:
    recorded = replay(upstream, "chat-think-single")
    answer = client.chat.completions.create(model="tiny-test", messages=HELLO, reasoning_effort="low")
    message = answer.choices[0].message
    assert message.reasoning == message.reasoning_content == recorded["message"]["thinking"]
    assert forwarded(upstream)[-1].json()["think"] == "low"


def test_tools_there_and_back(client: Any, upstream: FaultUpstream) -> None:
    replay(upstream, "chat-tool-single")
    message = client.chat.completions.create(model="tiny-test", messages=HELLO, tools=[WEATHER]).choices[0].message
    [call] = message.tool_calls
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    history = [*HELLO, message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}]
    replay(upstream, "chat-hello-single")
    assert client.chat.completions.create(model="tiny-test", messages=history, tools=[WEATHER]).choices[0].message
    sent = forwarded(upstream)[-1].json()["messages"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == arguments
    assert (sent[2]["tool_name"], sent[2]["tool_call_id"]) == ("get_weather", call.id)


class City(BaseModel):
    name: str
    people: int


def test_parsed_answer(client: Any, upstream: FaultUpstream) -> None:
    content = '{"name":"Paris","people":2}'
    message = {"role": "assistant", "content": content}
    upstream.script("/api/chat", [Json({"model": "m", "message": message, "done": True, "done_reason": "stop"})])
    answer = client.chat.completions.parse(model="m", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris", people=2)
    assert forwarded(upstream)[-1].json()["format"]["properties"].keys() == {"name", "people"}


def test_parsed_answer_that_was_cut_off_is_said_so(client: Any, upstream: FaultUpstream) -> None:
    message = {"role": "assistant", "content": '{"name":"Par'}
    upstream.script("/api/chat", [Json({"model": "m", "message": message, "done": True, "done_reason": "length"})])
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="m", messages=HELLO, response_format=City)


def test_logprobs(client: Any, upstream: FaultUpstream) -> None:
    recorded = replay(upstream, "chat-logprobs-single")
    answer = client.chat.completions.create(model="tiny-test", messages=HELLO, logprobs=True, top_logprobs=2)
    tokens = [entry.token for entry in answer.choices[0].logprobs.content]
    assert tokens == [entry["token"] for entry in recorded["logprobs"]]


def test_usage_of_a_stream(client: Any, upstream: FaultUpstream) -> None:
    recorded = replay(upstream, "chat-hello-stream")
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="m", messages=HELLO, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == recorded["eval_count"]


@pytest.mark.parametrize("stream", [False, True])
def test_completions(stream: bool, client: Any, upstream: FaultUpstream) -> None:
    replay(upstream, "generate-hello-stream" if stream else "generate-hello-single")
    answer = client.completions.create(model="tiny-test", prompt="Hello!", stream=stream, max_tokens=20)
    chunks = list(answer) if stream else [answer]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello! How can I help you today?"
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["default", "float"])
def test_embeddings(options: dict[str, str], client: Any, upstream: FaultUpstream) -> None:
    """G28: the client asks for base64 unless told otherwise."""
    recorded = replay(upstream, "embed-many")
    answer = client.embeddings.create(model="tiny-test", input=["a"] * len(recorded["embeddings"]), **options)
    assert [one.index for one in answer.data] == list(range(len(recorded["embeddings"])))
    for one, expected in zip(answer.data, recorded["embeddings"], strict=True):
        assert one.embedding == pytest.approx(expected, rel=1e-6)
    assert answer.usage.prompt_tokens == recorded["prompt_eval_count"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_class_of_an_error_follows_its_status(
    status: int, kind: type[openai.APIStatusError], stream: bool, client: Any, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({"error": "what Ollama said"}, status)])
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="m", messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body["message"] == "what Ollama said"
    assert caught.value.request_id


def test_missing_model_has_its_code(client: Any, upstream: FaultUpstream) -> None:
    replay(upstream, "chat-model-unknown")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_wrong_key(open_client: Open, gateway: Gateway) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        open_client(gateway, api_key="wrong").models.list()
    assert caught.value.code == "invalid_api_key"


def test_bad_field_names_itself(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=HELLO, n=3)
    assert caught.value.param == "n"


def test_error_in_a_stream_is_raised_with_its_text(client: Any, upstream: FaultUpstream) -> None:
    """G02"""
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(LINE), Chunk(b'{"error":"boom"}\n')])
    with pytest.raises(openai.APIError, match="boom"):
        list(client.chat.completions.create(model="m", messages=HELLO, stream=True))


def test_stream_that_stops_is_raised(client: Any, upstream: FaultUpstream) -> None:
    """G04"""
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(LINE)])
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(client.chat.completions.create(model="m", messages=HELLO, stream=True))


@pytest.mark.parametrize(("status", "arrivals"), [(400, 1), (404, 1), (429, 2), (500, 2)])
def test_retries_of_the_client_are_all_there_are(
    status: int, arrivals: int, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """The gateway itself repeats nothing: what arrives is one request and the client's one retry."""
    upstream.script("/api/chat", [Json({"error": "no"}, status)])
    with pytest.raises(openai.APIStatusError):
        open_client(gateway, max_retries=1).chat.completions.create(model="m", messages=HELLO)
    assert len(forwarded(upstream)) == arrivals


def test_upstream_that_is_down_is_asked_for_again_and_found_when_back(
    open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    model = f"m:{secrets.token_hex(4)}"

    def statuses() -> list[int]:
        return [row["status"] for row in gateway.log_lines("access") if row["model"] == model]

    upstream.refuse()
    try:
        with pytest.raises(openai.InternalServerError, match="Failed to connect to Ollama service"):
            open_client(gateway, max_retries=1).chat.completions.create(model=model, messages=HELLO)
    finally:
        upstream.restart()
    assert open_client(gateway).chat.completions.create(model=model, messages=HELLO).choices
    assert len(forwarded(upstream)) == 1
    wait_until(lambda: sorted(statuses()) == [200, 503, 503], 5, lambda: f"the log has {statuses()}")


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_loses_patience_frees_the_upstream(
    stream: bool, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [WaitForPeerClose()])
    client = open_client(gateway, timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="m", messages=HELLO, stream=stream)
    # The asynchronous one may close its connection only when its loop runs once more.
    client.close()
    seen = upstream.wait_for_request()
    assert upstream.wait_peer_closed(seen.connection) - seen.at < 0.5 + 1.5


def test_leaving_a_stream_ends_it_at_the_upstream(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(LINE), WaitForPeerClose()])
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0) as client:
        with client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
            next(iter(stream))
    upstream.wait_peer_closed(forwarded(upstream)[-1].connection, seconds=3)


def test_raw_response_shows_the_ignored_fields(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO, verbosity="low", store=True)
    assert set(raw.headers["X-Ollama-Proxy-Ignored"].split(", ")) == {"verbosity", "store"}


def test_key_that_is_not_needed(demo_gateway: Gateway) -> None:
    """Without authentication any key does: users type some word, because the client refuses an empty one."""
    settings = {"auth": {"enabled": False}, "server": {"host": "127.0.0.1"}, "service": {"base_url": "demo:"}}
    with Gateway(settings) as open_gateway:
        with openai.OpenAI(base_url=f"{open_gateway.url}/v1", api_key="not-needed") as client:
            assert [model.id for model in client.models.list()]


def test_demo_chats(demo: Any) -> None:
    [model] = [model.id for model in demo.models.list()]
    single = demo.chat.completions.create(model=model, messages=HELLO).choices[0].message.content
    chunks = list(demo.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == single
    assert "demo" in single.lower()


def test_demo_calls_tools_and_keeps_to_a_schema(demo: Any) -> None:
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = demo.chat.completions.create(model="demo", messages=question, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    parsed = demo.chat.completions.parse(model="demo", messages=HELLO, response_format=City).choices[0].message.parsed
    assert isinstance(parsed, City)


def test_demo_embeds(demo: Any) -> None:
    first, second = demo.embeddings.create(model="demo", input=["a", "b"]).data
    assert len(first.embedding) == len(second.embedding) > 0
    assert first.embedding != second.embedding
