"""LangChain's models for OpenAI: another base URL and key, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from tests.golden.face import TOKEN, forwarded
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.sdk import langchain_chats
from tests.sdk.answers import replay, sent
from tests.sdk.langchain_chats import get_weather, streamed
from tests.sdk.samples import QUESTION, UNICODE

Open = Callable[..., Any]
chat = langchain_chats.chat


@pytest.fixture
def open_model() -> Iterator[Open]:
    """``open_model(gateway, kind=ChatOpenAI, ...)`` gives one of the models; its
    connections end with the test."""
    with ExitStack() as opened:

        def run(gateway: Gateway, kind: Callable[..., Any] = ChatOpenAI, **options: Any) -> Any:
            http = opened.enter_context(httpx.Client(base_url=f"{gateway.url}/v1"))
            common: dict[str, Any] = {
                "base_url": f"{gateway.url}/v1",
                "api_key": SecretStr(TOKEN),
                "max_retries": 0,
            }
            return kind(**{**common, "http_client": http, **options})

        yield run


def test_chat__single(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI().invoke([...])"""
    answer = chat("hello", temperature=0.5).invoke(
        [SystemMessage("Be brief."), HumanMessage("Hello!")]
    )
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("Hello there", "stop")
    assert [message["role"] for message in sent(upstream)["messages"]] == ["system", "user"]
    assert sent(upstream)["options"] == {"temperature": 0.5}


def test_chat__streaming(chat: Open) -> None:
    """ChatOpenAI().stream(...)"""
    whole = streamed(chat("hello"))
    assert (whole.content, whole.response_metadata["finish_reason"]) == ("Hello there", "stop")


def test_chat__async_streaming(open_model: Open, gateway: Gateway) -> None:
    """ChatOpenAI().astream(...)"""

    async def run() -> str:
        async with httpx.AsyncClient(base_url=f"{gateway.url}/v1") as http:
            model = open_model(gateway, model="hello", http_async_client=http)
            return "".join([str(chunk.content) async for chunk in model.astream("Hello!")])

    assert asyncio.run(run()) == "Hello there"


def test_chat__unicode(chat: Open) -> None:
    """ChatOpenAI().stream(...)"""
    assert streamed(chat("unicode")).content == UNICODE


def test_chat__usage(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(stream_usage=True).stream(...)"""
    recorded = replay(upstream, "chat-hello-stream")
    usage = streamed(chat("tiny-test", stream_usage=True)).usage_metadata
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"]) == (
        recorded["prompt_eval_count"],
        recorded["eval_count"],
    )


def test_chat__thinking(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(reasoning_effort="low").invoke(...)"""
    assert chat("thinks", reasoning_effort="low").invoke("2 + 2?").content == "It is four."
    assert sent(upstream)["think"] == "low"


def test_chat__one_tool(chat: Open) -> None:
    """ChatOpenAI().bind_tools([...]).invoke(...)"""
    langchain_chats.check_one_tool(chat)


def test_chat__parallel_tools(chat: Open) -> None:
    """ChatOpenAI().bind_tools([...]).stream(...)"""
    calls = streamed(chat("calls-two").bind_tools([get_weather]), QUESTION).tool_calls
    assert [call["args"] for call in calls] == [{"city": "Paris"}, {"city": "北京"}]
    assert len({call["id"] for call in calls}) == 2


def test_chat__tool_round_trip(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI().bind_tools([...]).invoke([..., answer, ToolMessage(...)])"""
    assert langchain_chats.check_tool_round_trip(chat, upstream)["tool_name"] == "get_weather"


def test_chat__image(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI().invoke([HumanMessage([{"type": "image_url"}])])"""
    langchain_chats.check_image(chat, upstream)


@langchain_chats.each_structure
def test_chat__json_schema(method: str, chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI().with_structured_output(City)"""
    langchain_chats.check_structured(method, chat, upstream)


def test_chat__length(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(max_tokens=...).invoke(...)"""
    assert (
        chat("length", max_tokens=3).invoke("Hello!").response_metadata["finish_reason"] == "length"
    )
    assert sent(upstream)["options"] == {"num_predict": 3}


def test_chat__stop(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI().invoke(stop=[...])"""
    chat("hello").invoke("Hello!", stop=["END"])
    assert sent(upstream)["options"] == {"stop": ["END"]}


def test_chat__n(chat: Open) -> None:
    """ChatOpenAI(n=2).generate([[...]])"""
    [answers] = chat("hello", n=2).generate([[HumanMessage("Hello!")]]).generations
    assert [answer.text for answer in answers] == ["Hello there"] * 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (404, openai.NotFoundError), (500, openai.InternalServerError)],
)
def test_chat__error_before(status: int, kind: type[Exception], chat: Open) -> None:
    """ChatOpenAI().invoke(...)"""
    with pytest.raises(kind, match="what Ollama said"):
        chat(f"status-{status}").invoke("Hello!")


def test_chat__error_in_the_middle(chat: Open) -> None:
    """ChatOpenAI().stream(...)"""
    with pytest.raises(openai.APIError, match="boom"):
        streamed(chat("boom"))


@pytest.mark.parametrize("model", ["ends-early", "cut"])
def test_chat__truncated(model: str, chat: Open) -> None:
    """ChatOpenAI().stream(...)"""
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        streamed(chat(model))


def test_chat__retries(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(max_retries=2).invoke(...)"""
    assert chat("busy-twice", max_retries=2).invoke("Hello!").content == "Hello there"
    assert len(forwarded(upstream)) == 3


def test_chat__timeout(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(timeout=...).invoke(...)"""
    with pytest.raises(openai.APITimeoutError):
        chat("silent", timeout=0.5).invoke("Hello!")
    upstream.wait_peer_closed(upstream.wait_for_request().connection)


def test_chat__demo(open_model: Open, demo_gateway: Gateway) -> None:
    """ChatOpenAI(model="demo").bind_tools([...]).invoke(...)"""
    langchain_chats.check_demo(open_model(demo_gateway, model="demo"))


def test_completions__single(open_model: Open, gateway: Gateway) -> None:
    """OpenAI().invoke(...)"""
    assert open_model(gateway, OpenAI, model="hello").invoke("Hello!") == "Hello there"


def test_completions__streaming(open_model: Open, gateway: Gateway) -> None:
    """OpenAI().stream(...)"""
    assert "".join(open_model(gateway, OpenAI, model="unicode").stream("Hello!")) == UNICODE


def test_embeddings__many(open_model: Open, gateway: Gateway, upstream: FaultUpstream) -> None:
    """OpenAIEmbeddings(check_embedding_ctx_length=False).embed_documents([...])

    Otherwise it sends token numbers that only OpenAI's own models understand.
    """
    recorded = replay(upstream, "embed-many")["embeddings"]
    model = open_model(
        gateway, OpenAIEmbeddings, model="tiny-test", check_embedding_ctx_length=False
    )
    vectors = model.embed_documents(["a"] * len(recorded))
    assert vectors == [pytest.approx(each, rel=1e-6) for each in recorded]


def test_embeddings__one(open_model: Open, demo_gateway: Gateway) -> None:
    """OpenAIEmbeddings(check_embedding_ctx_length=False).embed_query(...)"""
    model = open_model(
        demo_gateway, OpenAIEmbeddings, model="demo", check_embedding_ctx_length=False
    )
    assert len(model.embed_query("a")) > 1


def test_responses__single(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(use_responses_api=True).invoke(...)"""
    answer = chat("hello", use_responses_api=True).invoke(
        [SystemMessage("Be brief."), HumanMessage("Hello!")]
    )
    assert (answer.text, answer.response_metadata["status"]) == ("Hello there", "completed")
    assert [message["role"] for message in sent(upstream)["messages"]] == ["system", "user"]


def test_responses__streaming(chat: Open) -> None:
    """ChatOpenAI(use_responses_api=True).stream(...)"""
    assert streamed(chat("hello", use_responses_api=True)).text == "Hello there"


def test_responses__tool_round_trip(chat: Open, upstream: FaultUpstream) -> None:
    """ChatOpenAI(use_responses_api=True).bind_tools([...]).invoke([...,
    answer, ToolMessage(...)])"""
    langchain_chats.check_tool_round_trip(chat, upstream, use_responses_api=True)
