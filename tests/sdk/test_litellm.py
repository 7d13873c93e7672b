"""litellm as a client: each of its providers that can have another base URL speaks one
of the gateway's APIs."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.golden.face import TOKEN, forwarded
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.sdk.answers import recorded_lines, replay, sent
from tests.sdk.samples import CALLED_TWO, HELLO, LOOK, PNG, QUESTION, UNICODE, WEATHER, City

ASKED: Any = [{"role": "user", "content": QUESTION}]
Options = dict[str, Any]
#: It copies its own messages into types that they don't have.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def litellm(shared_gateway: Gateway, demo_gateway: Gateway) -> Iterator[Any]:
    """The library, imported where it is needed because that takes seconds. It calls nobody but the
    gateway, prints nothing, and leaves no connection behind."""
    import litellm

    litellm.telemetry, litellm.suppress_debug_info = False, True
    # It makes itself an event loop where there is none, and never closes it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield litellm
    clients = litellm.in_memory_llm_clients_cache
    for client in (
        *clients.cache_dict.values(),
        litellm.module_level_client,
        litellm.module_level_aclient,
    ):
        closing = client.close()
        if asyncio.iscoroutine(closing):
            loop.run_until_complete(closing)
    clients.flush_cache()
    asyncio.set_event_loop(None)
    loop.close()
    # It has made clients for single calls that nobody closes.
    gc.collect()


@pytest.fixture
def v1(gateway: Gateway) -> Options:
    """For the provider `openai`."""
    return {"api_base": f"{gateway.url}/v1", "api_key": TOKEN, "max_retries": 0}


@pytest.fixture
def root(gateway: Gateway) -> Options:
    """For the providers `ollama_chat` and `ollama`."""
    return {"api_base": gateway.url, "api_key": TOKEN}


def text_of(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_chat__single(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion("openai/...", api_base=...)"""
    answer: Any = litellm.completion("openai/hello", HELLO, temperature=0.5, **v1)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "Hello there",
        "stop",
    )
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)
    assert sent(upstream)["options"] == {"temperature": 0.5}


def test_chat__streaming(litellm: Any, v1: Options) -> None:
    """litellm.completion(stream=True)"""
    chunks = list(litellm.completion("openai/hello", HELLO, stream=True, **v1))
    assert text_of(chunks) == "Hello there"
    whole: Any = litellm.stream_chunk_builder(chunks, messages=HELLO)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (
        "Hello there",
        "stop",
    )


def test_chat__async_streaming(litellm: Any, v1: Options) -> None:
    """litellm.acompletion(stream=True)"""

    async def run() -> str:
        # Of its own it would leave the connection open behind the event loop.
        async with openai.AsyncOpenAI(base_url=v1["api_base"], api_key=TOKEN) as client:
            stream: Any = await litellm.acompletion(
                "openai/hello", HELLO, stream=True, client=client, **v1
            )
            return text_of([chunk async for chunk in stream])

    assert asyncio.run(run()) == "Hello there"


def test_chat__unicode(litellm: Any, v1: Options) -> None:
    """litellm.completion(stream=True)"""
    assert text_of(litellm.completion("openai/unicode", HELLO, stream=True, **v1)) == UNICODE


def test_chat__thinking(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(reasoning_effort="low", allowed_openai_params=["reasoning_effort"])"""
    asked = {"reasoning_effort": "low", "allowed_openai_params": ["reasoning_effort"]}
    answer: Any = litellm.completion("openai/thinks", HELLO, **asked, **v1)
    assert answer.choices[0].message.reasoning_content == "Let me think."
    assert sent(upstream)["think"] == "low"


def test_chat__one_tool(litellm: Any, v1: Options) -> None:
    """litellm.completion(tools=[...])"""
    answer: Any = litellm.completion("openai/calls", ASKED, tools=[WEATHER], **v1)
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "北京"},
    )


def test_chat__parallel_tools(litellm: Any, v1: Options) -> None:
    """litellm.completion(tools=[...], stream=True)"""
    chunks = list(litellm.completion("openai/calls-two", ASKED, tools=[WEATHER], stream=True, **v1))
    whole: Any = litellm.stream_chunk_builder(chunks, messages=ASKED)
    calls = whole.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == CALLED_TWO


def test_chat__tool_round_trip(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(messages=[..., message, {"role": "tool"}])"""
    first: Any = litellm.completion("openai/calls", ASKED, tools=[WEATHER], **v1)
    [call] = first.choices[0].message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    history = [*ASKED, first.choices[0].message, result]
    answer: Any = litellm.completion("openai/calls", history, tools=[WEATHER], **v1)
    assert answer.choices[0].message.content == "It is warm."
    _, assistant, tool = sent(upstream)["messages"]
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "北京"}
    assert (tool["tool_name"], tool["content"]) == ("get_weather", "18 degrees")


def test_chat__image(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(messages=[{"content": [{"type": "image_url"}]}])"""
    litellm.completion("openai/hello", LOOK, **v1)
    assert sent(upstream)["messages"][0]["images"] == [PNG]


def test_chat__json_schema(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(response_format=City)"""
    answer: Any = litellm.completion("openai/city", HELLO, response_format=City, **v1)
    assert City.model_validate_json(answer.choices[0].message.content) == City(
        name="Paris", people=2
    )
    assert list(sent(upstream)["format"]["properties"]) == ["name", "people"]


def test_chat__length(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(max_tokens=...)"""
    answer: Any = litellm.completion("openai/length", HELLO, max_tokens=3, **v1)
    assert answer.choices[0].finish_reason == "length"
    assert sent(upstream)["options"] == {"num_predict": 3}


def test_chat__stop(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(stop=...)"""
    litellm.completion("openai/hello", HELLO, stop="END", **v1)
    assert sent(upstream)["options"] == {"stop": ["END"]}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (403, "APIError"),
        (404, "NotFoundError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailableError"),
    ],
)
def test_chat__error_before(litellm: Any, status: int, kind: str, v1: Options) -> None:
    """litellm.completion(...)"""
    with pytest.raises(getattr(litellm, kind), match="what Ollama said") as caught:
        litellm.completion(f"openai/status-{status}", HELLO, stream=True, **v1)
    assert getattr(caught.value, "status_code", None) == status


def test_chat__error_in_the_middle(litellm: Any, v1: Options) -> None:
    """litellm.completion(stream=True)"""
    with pytest.raises(litellm.exceptions.MidStreamFallbackError, match="boom"):
        list(litellm.completion("openai/boom", HELLO, stream=True, **v1))


@pytest.mark.parametrize("model", ["ends-early", "cut"])
def test_chat__truncated(litellm: Any, model: str, v1: Options) -> None:
    """litellm.completion(stream=True)"""
    with pytest.raises(litellm.exceptions.MidStreamFallbackError, match="stopped in the middle"):
        list(litellm.completion(f"openai/{model}", HELLO, stream=True, **v1))


def test_chat__retries(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(max_retries=2)"""
    answer: Any = litellm.completion("openai/busy-twice", HELLO, **{**v1, "max_retries": 2})
    assert answer.choices[0].message.content == "Hello there"
    assert len(forwarded(upstream)) == 3


def test_chat__timeout(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.completion(timeout=...)"""
    with pytest.raises(litellm.Timeout):
        litellm.completion("openai/silent", HELLO, timeout=0.5, **v1)
    upstream.wait_peer_closed(upstream.wait_for_request().connection)


def test_chat__wrong_key(litellm: Any, v1: Options) -> None:
    """litellm.completion(api_key="wrong")"""
    with pytest.raises(litellm.AuthenticationError, match="非授权访问"):
        litellm.completion("openai/hello", HELLO, **{**v1, "api_key": "wrong"})


def test_chat__demo(litellm: Any, demo_gateway: Gateway) -> None:
    """litellm.completion("openai/demo")"""
    options: Options = {"api_base": f"{demo_gateway.url}/v1", "api_key": TOKEN}
    assert "demo" in text_of(litellm.completion("openai/demo", HELLO, stream=True, **options))


def test_completions__single(litellm: Any, v1: Options) -> None:
    """litellm.text_completion("text-completion-openai/...")"""
    answer: Any = litellm.text_completion("Hello!", "text-completion-openai/hello", **v1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello there", "stop")


def test_completions__streaming(litellm: Any, v1: Options) -> None:
    """litellm.text_completion(stream=True)"""
    chunks: Any = litellm.text_completion(
        "Hello!", "text-completion-openai/unicode", stream=True, **v1
    )
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == UNICODE


def test_embeddings__many(litellm: Any, v1: Options, upstream: FaultUpstream) -> None:
    """litellm.embedding("openai/...", input=[...])"""
    recorded = replay(upstream, "embed-many")["embeddings"]
    answer = litellm.embedding("openai/tiny-test", ["a"] * len(recorded), **v1)
    assert [one["embedding"] for one in answer.data] == [
        pytest.approx(each, rel=1e-6) for each in recorded
    ]


def test_embeddings__many__native(litellm: Any, gateway: Gateway, upstream: FaultUpstream) -> None:
    """litellm.embedding("ollama/...", api_base="http://gateway/k/<token>")

    This provider sends no key with embeddings, so it is in the address.
    """
    recorded = replay(upstream, "embed-many")["embeddings"]
    answer = litellm.embedding("ollama/tiny-test", ["a", "b"], api_base=f"{gateway.url}/k/{TOKEN}")
    assert [one["embedding"] for one in answer.data] == recorded


def test_native__single(litellm: Any, root: Options, upstream: FaultUpstream) -> None:
    """litellm.completion("ollama_chat/...", api_base=...)"""
    answer: Any = litellm.completion("ollama_chat/hello", HELLO, num_ctx=512, **root)
    assert answer.choices[0].message.content == "Hello there"
    assert (forwarded(upstream)[-1].path, sent(upstream)["options"]) == (
        "/api/chat",
        {"num_ctx": 512},
    )


def test_native__streaming(litellm: Any, root: Options) -> None:
    """litellm.completion("ollama_chat/...", stream=True)"""
    assert (
        text_of(litellm.completion("ollama_chat/hello", HELLO, stream=True, **root))
        == "Hello there"
    )


def test_native__unicode(litellm: Any, root: Options, upstream: FaultUpstream) -> None:
    """litellm.completion("ollama_chat/...", stream=True)"""
    replay(upstream, "chat-chinese-stream", cut=1)
    said = "".join(line["message"]["content"] for line in recorded_lines("chat-chinese-stream"))
    assert text_of(litellm.completion("ollama_chat/tiny-test", HELLO, stream=True, **root)) == said


def test_native__thinking(litellm: Any, root: Options, upstream: FaultUpstream) -> None:
    """litellm.completion("ollama_chat/...", think=True)"""
    answer: Any = litellm.completion("ollama_chat/thinks", HELLO, think=True, **root)
    message = answer.choices[0].message
    assert (message.reasoning_content, message.content) == ("Let me think.", "It is four.")
    assert sent(upstream)["think"] is True


def test_native__parallel_tools(litellm: Any, root: Options) -> None:
    """litellm.completion("ollama_chat/...", tools=[...])"""
    answer: Any = litellm.completion("ollama_chat/calls-two", ASKED, tools=[WEATHER], **root)
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == CALLED_TWO


def test_native__generate(litellm: Any, root: Options, upstream: FaultUpstream) -> None:
    """litellm.completion("ollama/...")"""
    answer: Any = litellm.completion("ollama/hello", HELLO, **root)
    assert answer.choices[0].message.content == "Hello there"
    assert forwarded(upstream)[-1].path == "/api/generate"


def test_native__error_before(litellm: Any, root: Options) -> None:
    """litellm.completion("ollama_chat/...")"""
    with pytest.raises(litellm.APIConnectionError, match="what Ollama said"):
        litellm.completion("ollama_chat/status-404", HELLO, **root)


def test_native__error_in_the_middle(litellm: Any, root: Options) -> None:
    """litellm.completion("ollama_chat/...", stream=True)"""
    with pytest.raises(litellm.APIConnectionError, match="boom"):
        list(litellm.completion("ollama_chat/boom", HELLO, stream=True, **root))


def test_messages__single(litellm: Any, root: Options, upstream: FaultUpstream) -> None:
    """litellm.completion("anthropic/...", api_base=...)"""
    answer: Any = litellm.completion("anthropic/hello", HELLO, max_tokens=100, **root)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "Hello there",
        "stop",
    )
    assert sent(upstream)["options"] == {"num_predict": 100}


def test_messages__streaming(litellm: Any, root: Options) -> None:
    """litellm.completion("anthropic/...", stream=True)"""
    assert text_of(litellm.completion("anthropic/unicode", HELLO, stream=True, **root)) == UNICODE


def test_messages__parallel_tools(litellm: Any, root: Options) -> None:
    """litellm.completion("anthropic/...", tools=[...])"""
    answer: Any = litellm.completion("anthropic/calls-two", ASKED, tools=[WEATHER], **root)
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == CALLED_TWO


@pytest.mark.parametrize(("status", "kind"), [(400, "BadRequestError"), (404, "NotFoundError")])
def test_messages__error_before(litellm: Any, status: int, kind: str, root: Options) -> None:
    """litellm.completion("anthropic/...")"""
    with pytest.raises(getattr(litellm, kind), match="what Ollama said"):
        litellm.completion(f"anthropic/status-{status}", HELLO, **root)


def test_messages__native_helper(litellm: Any, root: Options) -> None:
    """litellm.anthropic_messages(...)"""

    async def run() -> Any:
        try:
            return await litellm.anthropic_messages(
                max_tokens=100, messages=HELLO, model="anthropic/hello", **root
            )
        finally:
            await litellm.close_litellm_async_clients()

    assert asyncio.run(run())["content"][0]["text"] == "Hello there"


def test_responses__single(litellm: Any, v1: Options) -> None:
    """litellm.responses("openai/...", api_base=...)"""
    answer: Any = litellm.responses(model="openai/hello", input="Hello!", **v1)
    assert answer.output[0].content[0].text == "Hello there"
