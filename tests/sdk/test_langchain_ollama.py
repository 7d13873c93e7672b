"""LangChain's models for Ollama: another host and a key in the headers, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import ollama
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

from tests.golden.face import TOKEN, forwarded
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.sdk import langchain_chats
from tests.sdk.answers import recorded_lines, replay, sent
from tests.sdk.langchain_chats import get_weather, streamed
from tests.sdk.samples import QUESTION

Open = Callable[..., Any]
chat = langchain_chats.chat


@pytest.fixture
def open_model() -> Iterator[Open]:
    """``open_model(gateway, kind=ChatOllama, ...)`` gives one of the models; its
    connections end with the test."""
    with ExitStack() as opened:

        def run(gateway: Gateway, kind: Callable[..., Any] = ChatOllama, **options: Any) -> Any:
            settings = {"headers": bearer(TOKEN), "timeout": options.pop("timeout", 20)}
            model = kind(**{"base_url": gateway.url, "client_kwargs": settings, **options})
            # The model itself has no way to be closed.
            opened.callback(model._client.close)
            return model

        yield run


def test_native__single(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().invoke([...])"""
    answer = chat("hello", temperature=0.5).invoke(
        [SystemMessage("Be brief."), HumanMessage("Hello!")]
    )
    assert (answer.content, answer.response_metadata["done_reason"]) == ("Hello there", "stop")
    assert [message["role"] for message in sent(upstream)["messages"]] == ["system", "user"]
    assert sent(upstream)["options"]["temperature"] == 0.5


def test_native__streaming(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().stream(...)"""
    recorded = replay(upstream, "chat-poem-stream", cut=1)
    whole = streamed(chat("tiny-test"))
    assert whole.content == "".join(
        line["message"]["content"] for line in recorded_lines("chat-poem-stream")
    )
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == recorded["eval_count"]


def test_native__async_streaming(chat: Open) -> None:
    """ChatOllama().astream(...)"""

    async def run() -> str:
        model = chat("hello")
        try:
            return "".join([str(chunk.content) async for chunk in model.astream("Hello!")])
        finally:
            await model._async_client.close()

    assert asyncio.run(run()) == "Hello there"


def test_native__unicode(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().stream(...)"""
    replay(upstream, "chat-chinese-stream", cut=1)
    said = "".join(line["message"]["content"] for line in recorded_lines("chat-chinese-stream"))
    assert streamed(chat("tiny-test")).content == said


def test_native__thinking(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama(reasoning=True).stream(...)"""
    whole = streamed(chat("thinks", reasoning=True))
    assert (whole.additional_kwargs["reasoning_content"], whole.content) == (
        "Let me think.",
        "It is four.",
    )
    assert sent(upstream)["think"] is True


def test_native__one_tool(chat: Open) -> None:
    """ChatOllama().bind_tools([...]).invoke(...)"""
    langchain_chats.check_one_tool(chat)


def test_native__parallel_tools(chat: Open) -> None:
    """ChatOllama().bind_tools([...]).stream(...)"""
    calls = streamed(chat("calls-two").bind_tools([get_weather]), QUESTION).tool_calls
    assert [call["args"] for call in calls] == [{"city": "Paris"}, {"city": "北京"}]


def test_native__tool_round_trip(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().bind_tools([...]).invoke([..., answer, ToolMessage(...)])"""
    langchain_chats.check_tool_round_trip(chat, upstream)


def test_native__image(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().invoke([HumanMessage([{"type": "image_url"}])])"""
    langchain_chats.check_image(chat, upstream)


@langchain_chats.each_structure
def test_native__json_schema(method: str, chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().with_structured_output(City)"""
    langchain_chats.check_structured(method, chat, upstream)


def test_native__length(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama(num_predict=...).invoke(...)"""
    assert (
        chat("length", num_predict=3).invoke("Hello!").response_metadata["done_reason"] == "length"
    )
    assert sent(upstream)["options"]["num_predict"] == 3


def test_native__stop(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().invoke(stop=[...])"""
    chat("hello").invoke("Hello!", stop=["END"])
    assert sent(upstream)["options"]["stop"] == ["END"]


@pytest.mark.parametrize("status", [400, 404, 500])
def test_native__error_before(status: int, chat: Open) -> None:
    """ChatOllama().invoke(...)"""
    with pytest.raises(ollama.ResponseError, match="what Ollama said") as caught:
        chat(f"status-{status}").invoke("Hello!")
    assert caught.value.status_code == status


def test_native__error_in_the_middle(chat: Open) -> None:
    """ChatOllama().stream(...)"""
    with pytest.raises(ollama.ResponseError, match="boom"):
        streamed(chat("boom"))


def test_native__truncated(chat: Open) -> None:
    """ChatOllama().stream(...)"""
    with pytest.raises(ollama.ResponseError):
        streamed(chat("ends-early"))


def test_native__retries(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama().with_retry(stop_after_attempt=3).invoke(...)"""
    model = chat("busy-twice").with_retry(wait_exponential_jitter=False, stop_after_attempt=3)
    assert model.invoke("Hello!").content == "Hello there"
    assert len(forwarded(upstream)) == 3


def test_native__timeout(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOllama(client_kwargs={"timeout": ...}).invoke(...)"""
    with pytest.raises(httpx.ReadTimeout):
        chat("silent", timeout=0.5).invoke("Hello!")
    upstream.wait_peer_closed(upstream.wait_for_request().connection)


def test_native__key_in_the_host(open_model: Open, gateway: Gateway) -> None:
    """ChatOllama(base_url="http://gateway/k/<token>").invoke(...)"""
    model = open_model(
        gateway, base_url=f"{gateway.url}/k/{TOKEN}", client_kwargs={}, model="hello"
    )
    assert model.invoke("Hello!").content == "Hello there"


def test_native__generate(open_model: Open, gateway: Gateway) -> None:
    """OllamaLLM().invoke(...)"""
    assert open_model(gateway, OllamaLLM, model="hello").invoke("Hello!") == "Hello there"


def test_native__generate__as_a_stream(open_model: Open, gateway: Gateway) -> None:
    """OllamaLLM().stream(...)"""
    assert list(filter(None, open_model(gateway, OllamaLLM, model="hello").stream("Hello!"))) == [
        "Hello",
        " there",
    ]


def test_native__demo(open_model: Open, demo_gateway: Gateway) -> None:
    """ChatOllama(model="demo").bind_tools([...]).invoke(...)"""
    langchain_chats.check_demo(open_model(demo_gateway, model="demo", validate_model_on_init=True))


def test_embeddings__many(open_model: Open, gateway: Gateway, upstream: FaultUpstream) -> None:
    """OllamaEmbeddings().embed_documents([...])"""
    recorded = replay(upstream, "embed-many")["embeddings"]
    assert (
        open_model(gateway, OllamaEmbeddings, model="tiny-test").embed_documents(["a", "b"])
        == recorded
    )


def test_embeddings__one(open_model: Open, demo_gateway: Gateway) -> None:
    """OllamaEmbeddings().embed_query(...)"""
    assert len(open_model(demo_gateway, OllamaEmbeddings, model="demo").embed_query("a")) > 1
