"""The demo behind OllamaUpstream: what the dialects get from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from ollama_proxy.errors import UpstreamRefused
from ollama_proxy.hub import (
    Answer,
    ChatRequest,
    Content,
    Done,
    EmbedRequest,
    GenerateRequest,
    Message,
    Model,
    Thinking,
    Tool,
    collect,
)
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.base import Connections
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.demo.answers import CAPABILITIES
from ollama_proxy.upstreams.demo.requests import CONTEXT_LENGTH
from ollama_proxy.upstreams.demo.transport import VERSION, DemoTransport
from ollama_proxy.upstreams.demo.words import DIMENSIONS
from ollama_proxy.upstreams.ollama.upstream import OllamaUpstream
from tests.rig.clock import SkippingClock


@pytest.fixture
def upstream() -> Iterator[OllamaUpstream]:
    """The demo, with no answer left open when the test is over."""
    demo = OllamaUpstream("demo", DemoTransport())
    yield demo
    demo.close()
    assert demo.connections == Connections(active=0, idle=0)


@pytest.fixture
def call() -> Call:
    return Call(Timeouts(), clock=SkippingClock())


def answered(upstream: OllamaUpstream, call: Call, asked: ChatRequest | GenerateRequest) -> Answer:
    if isinstance(asked, ChatRequest):
        stream = upstream.chat(asked, call)
    else:
        stream = upstream.generate(asked, call)
    with closing(stream) as events:
        (answer,) = collect(event for batch in events for event in batch)
    return answer


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_goes_through_the_hub(upstream: OllamaUpstream, call: Call, stream: bool) -> None:
    asked = ChatRequest(
        model="demo", messages=[Message("user", "Hello!")], stream=stream, think=True
    )
    got = answered(upstream, call, asked)
    assert got.content.endswith("Hello!") and got.thinking and got.done.done_reason == "stop"
    assert got.done.prompt_eval_count > 0 and got.done.eval_count > 10


def test_a_chat_gives_events_one_by_one(upstream: OllamaUpstream, call: Call) -> None:
    asked = ChatRequest(model="demo", messages=[Message("user", "Hello!")], stream=True, think=True)
    with closing(upstream.chat(asked, call, heartbeat_s=15.0)) as events:
        batches = [batch for batch in events if batch]
    assert len(batches) > 10 and isinstance(batches[0][0], Thinking)
    assert isinstance(batches[-2][-1], Content) and isinstance(batches[-1][-1], Done)


@pytest.mark.parametrize("stream", [True, False])
def test_tool_calls_go_through_the_hub(upstream: OllamaUpstream, call: Call, stream: bool) -> None:
    tools = [
        Tool(
            "f",
            "first",
            {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]},
        )
    ]
    tools.append(Tool("g", None, None))
    got = answered(
        upstream,
        call,
        ChatRequest(
            model="demo", messages=[Message("user", "f and g")], stream=stream, tools=tools
        ),
    )
    assert [(made.name, made.arguments) for made in got.tool_calls] == [("f", {"n": 1}), ("g", {})]


@pytest.mark.parametrize("stream", [True, False])
def test_a_completion_goes_through_the_hub(
    upstream: OllamaUpstream, call: Call, stream: bool
) -> None:
    asked = GenerateRequest(
        model="demo", prompt="Once upon", stream=stream, options={"num_predict": 4}, logprobs=True
    )
    got = answered(upstream, call, asked)
    assert (got.done.done_reason, got.done.eval_count, len(got.logprobs)) == ("length", 4, 4)


def test_embeddings_models_and_version_go_through_the_hub(
    upstream: OllamaUpstream, call: Call
) -> None:
    embedded = upstream.embed(EmbedRequest(model="demo", input=["a", "b"], dimensions=16), call)
    assert [len(vector) for vector in embedded.embeddings] == [
        16,
        16,
    ] and embedded.prompt_eval_count == 2
    (model,) = upstream.models(call)
    able, row = frozenset(CAPABILITIES), model.row
    lengths = (CONTEXT_LENGTH, row, DIMENSIONS)
    assert (
        model == Model("demo:latest", model.modified_at, "ollama", able, *lengths)
        and model.modified_at > 0
    )
    assert row is not None and row["digest"] and row["model"] == "demo:latest"
    assert upstream.version(call) == VERSION


@pytest.mark.parametrize("stream", [True, False])
def test_an_unknown_model_is_refused_before_any_event(
    upstream: OllamaUpstream, call: Call, stream: bool
) -> None:
    with pytest.raises(UpstreamRefused, match="model 'other' not found") as refused:
        answered(
            upstream,
            call,
            ChatRequest(model="other", messages=[Message("user", "x")], stream=stream),
        )
    assert refused.value.status == 404
