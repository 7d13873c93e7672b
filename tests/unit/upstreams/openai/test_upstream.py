"""A provider of OpenAI's API over real sockets: what it is asked, and what comes of its answers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gevent
import pytest

from ollama_proxy.errors import (
    BadRequest,
    ClientGone,
    PromptTooLong,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.hub import (
    Answer,
    ChatRequest,
    Done,
    EmbedRequest,
    GenerateRequest,
    Message,
    Model,
    Tool,
    ToolCall,
)
from ollama_proxy.settings.upstreams import Timeouts, UpstreamModel, UpstreamSettings
from ollama_proxy.telemetry.access_log import log
from ollama_proxy.upstreams.base import Connections, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.openai.upstream import OpenAICompatibleUpstream, build
from ollama_proxy.upstreams.transport.session import HttpTransport
from tests.rig import SSE
from tests.rig import provider as rig
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    Head,
    Json,
    Reset,
    Script,
    Send,
    Wait,
    WaitForPeerClose,
    Whole,
)
from tests.rig.fixtures import function_fixture
from tests.rig.provider import CHAT, COMPLETIONS, EMBEDDINGS, HELLO, MODEL, MODELS, Provider
from tests.unit.upstreams.stock import answered, batches

DONE = Done("stop", 7, 3)
GREETING = Answer(HELLO, "", [], [], DONE)


provider = function_fixture(lambda: Provider(key=rig.KEY))


@pytest.fixture
def upstream(provider: Provider) -> Iterator[OpenAICompatibleUpstream]:
    """Behind that provider, with no answer left open when the test is over."""
    with closing(built(provider)) as one:
        yield one
        assert one.connections.active == 0


def built(
    provider: Provider,
    kind: str = "openai",
    key: str | None = rig.KEY,
    base_url: str = "",
    **settings: Any,
) -> OpenAICompatibleUpstream:
    declared = UpstreamSettings(
        name="lab", kind=kind, base_url=base_url or provider.base_url, **settings
    )
    return build(declared, key, HttpTransport)


def chat(stream: bool = True, **fields: Any) -> ChatRequest:
    asked: dict[str, Any] = {"model": MODEL, "stream": stream, "messages": [Message("user", "hi")]}
    return ChatRequest(**asked | fields)


def embed(**fields: Any) -> EmbedRequest:
    return EmbedRequest(**{"model": MODEL, "input": ["a", "b"]} | fields)


# Asking.


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, stream: bool
) -> None:
    assert answered(upstream, chat(stream), call) == GREETING
    [request] = provider.requests
    assert (request.method, request.raw_path) == ("POST", CHAT)
    assert request.header("authorization") == f"Bearer {rig.KEY}"
    assert request.header("content-type") == "application/json"
    assert request.header("accept") == ("text/event-stream" if stream else "application/json")
    assert request.json()["stream"] is stream


@pytest.mark.parametrize("base_url", ["{}/v1", "{}/v1/", "{}/v1//"])
def test_the_path_of_the_base_url_is_kept(provider: Provider, call: Call, base_url: str) -> None:
    with closing(built(provider, base_url=base_url.format(provider.url))) as upstream:
        assert answered(upstream, chat(), call) == GREETING


def test_a_base_url_of_another_form(provider: Provider, call: Call) -> None:
    provider.script("/api/v3/chat/completions", rig.said(stream=True))
    with closing(built(provider, base_url=f"{provider.url}/api/v3", key=None)) as upstream:
        assert answered(upstream, chat(), call) == GREETING
    assert provider.requests[0].header("authorization") is None


def test_the_connection_is_used_again(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    for stream in (True, False, True):
        answered(upstream, chat(stream), call)
    assert {request.connection for request in provider.requests} == {1}


def test_bytes_pass_as_they_are(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    body = b'{ "model":"x",  "messages":[] }'
    with closing(
        upstream.forward(UpstreamRequest("POST", "/chat/completions", body), call)
    ) as reply:
        assert (reply.status, b'"chat.completion"' in (reply.read_some() or b"")) == (200, True)
    assert provider.requests[0].body == body


# Streams, cut in every way.

CALLS = [rig.call("f", {"a": "世🎉"}, "c1"), rig.call("g", {}, "c2")]
EVENTFUL = rig.chunks("Hi, 世界", thinking="hm", calls=CALLS)
TOLD = Answer(
    "Hi, 世界", "hm", [ToolCall("c1", "f", {"a": "世🎉"}), ToolCall("c2", "g", {})], [], DONE
)


@pytest.mark.parametrize("edges", [1, 2, 3, 7, 50, None])
def test_a_stream_is_the_same_however_it_is_cut(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, edges: int | None
) -> None:
    provider.script(CHAT, rig.streamed(EVENTFUL, edges=edges))
    assert answered(upstream, chat(), call) == TOLD


PLACES = [rig.OWN, rig.OWN_NULL, rig.WITH_FINISH, rig.EVERYWHERE]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_usage_counts_wherever_it_is(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, place: str, done: bool
) -> None:
    provider.script(CHAT, rig.streamed(rig.chunks(usage_at=place), done=done))
    assert answered(upstream, chat(), call) == GREETING


def test_usage_may_come_late(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    *told, usage = rig.chunks()
    late: list[Action] = [
        Chunk(rig.frames(told, done=False)),
        Wait(0.3),
        Chunk(rig.frames([usage])),
    ]
    provider.script(CHAT, [Head(200, SSE), *late])
    assert answered(upstream, chat(), call) == GREETING


@pytest.mark.parametrize(
    "rest", [[WaitForPeerClose(9)], [Cut()], [Reset()]], ids=["silence", "a cut", "a reset"]
)
def test_an_answer_that_has_finished_is_complete(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, rest: list[Any]
) -> None:
    told = rig.chunks(usage_at=rig.NOWHERE)
    provider.script(CHAT, [Head(200, SSE), Chunk(rig.frames(told, done=False)), *rest])
    began = time.monotonic()
    assert answered(upstream, chat(), call) == Answer(HELLO, "", [], [], Done("stop"))
    assert time.monotonic() - began < 5


def test_signs_of_life_end_no_patience(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    """A provider that says nothing but comments behind the end does not hold the
    answer back for ever."""
    told = Chunk(rig.frames(rig.chunks(usage_at=rig.NOWHERE), done=False))
    signs: list[Action] = [Wait(0.4), Chunk(b": hi\n\n")]
    provider.script(CHAT, [Head(200, SSE), told, *signs * 25, WaitForPeerClose(9)])
    began = time.monotonic()
    answered(upstream, chat(), call)
    assert time.monotonic() - began < 7


def test_heartbeats_come_while_nothing_does(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    body = rig.frames(rig.chunks("Hi"))
    provider.script(CHAT, [Wait(0.6), Head(200, SSE), Wait(0.6), Chunk(b": hi\n\n"), Chunk(body)])
    told = batches(upstream, chat(), call, heartbeat_s=0.1)
    assert sum(batch == () for batch in told) >= 2
    assert told[-1][-1] == DONE


def test_heartbeats_come_while_only_signs_of_life_do(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    signs: list[Action] = [Wait(0.1), Chunk(b": hi\n\n")]
    provider.script(CHAT, [Head(200, SSE), *signs * 10, Chunk(rig.frames(rig.chunks("Hi")))])
    told = batches(upstream, chat(), call, heartbeat_s=0.3)
    assert 2 <= sum(not batch for batch in told) <= 5
    assert told[-1][-1] == DONE


@pytest.mark.parametrize("end", [[Cut()], [Reset()], []], ids=["a cut", "a reset", "a clean end"])
def test_a_stream_that_stops_was_cut(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, end: list[Any]
) -> None:
    provider.script(CHAT, [Head(200, SSE), Chunk(rig.frames(rig.chunks()[:2], done=False)), *end])
    with pytest.raises(UpstreamCut):
        answered(upstream, chat(), call)


def test_silence_in_the_middle_has_its_limit(
    provider: Provider, upstream: OpenAICompatibleUpstream
) -> None:
    told = Chunk(rig.frames(rig.chunks()[:2], done=False))
    provider.script(CHAT, [Head(200, SSE), told, WaitForPeerClose(4)])
    with pytest.raises(UpstreamTimeout):
        answered(
            upstream, chat(), Call(Timeouts(connect_s=2, first_byte_s=2, idle_s=0.2, total_s=5))
        )


def test_an_error_in_the_middle(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    provider.script(CHAT, rig.streamed([*rig.chunks()[:2], rig.error("no credits left", code=502)]))
    with closing(upstream.chat(chat(), call)) as events:
        told = iter(events)
        assert next(told)
        with pytest.raises(UpstreamRefused, match="no credits left"):
            list(told)


def test_whoever_leaves_is_not_waited_for(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    provider.script(
        CHAT, [Head(200, SSE), Chunk(rig.frames(rig.chunks()[:2], done=False)), WaitForPeerClose(4)]
    )
    with closing(upstream.chat(chat(), call)) as events, pytest.raises(ClientGone):
        for _ in events:
            gevent.spawn(call.leave)
    assert provider.wait_event("peer_closed")


# Single answers.


def test_a_single_answer_may_have_blank_lines_in_front(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:

    body = json.dumps(rig.completion()).encode()
    provider.script(
        CHAT, [Head(200, {"Content-Type": "application/json"}), *[Chunk(b"\n")] * 3, Chunk(body)]
    )
    assert answered(upstream, chat(False), call) == GREETING


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("document", "status"),
    [
        (rig.error("busy", code=503), 503),
        (rig.error("slow down", code=429), 429),
        ({"code": 20012, "message": "Model does not exist", "data": None}, 404),
    ],
)
def test_an_error_with_status_200(
    provider: Provider,
    upstream: OpenAICompatibleUpstream,
    call: Call,
    document: Any,
    status: int,
    stream: bool,
) -> None:
    provider.script(CHAT, [Json(document)])
    with pytest.raises(UpstreamRefused) as failed:
        answered(upstream, chat(stream), call)
    assert failed.value.status == status


@pytest.mark.parametrize("stream", [True, False])
def test_a_page_with_status_200(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, stream: bool
) -> None:
    provider.script(CHAT, [Whole(b"<!DOCTYPE html><html>", headers={"Content-Type": "text/html"})])
    with pytest.raises(UpstreamError) as failed:
        answered(upstream, chat(stream), call)
    assert (failed.value.status, "html" in str(failed.value).lower()) == (502, False)


# Refusals.

REFUSALS: dict[str, tuple[Script, type[UpstreamError], int]] = {
    "bad": (rig.refused(400, "bad"), UpstreamRefused, 400),
    "our key": (rig.refused(401, "Incorrect API key provided"), UpstreamAuthError, 502),
    "our balance": (rig.refused(402, "Insufficient Balance"), UpstreamAuthError, 502),
    "unknown": (
        rig.refused(404, "The model does not exist", code="model_not_found"),
        UpstreamRefused,
        404,
    ),
    "often": (rig.refused(429, "slow down", {"Retry-After": "7"}), UpstreamRefused, 429),
    "long": (rig.refused(400, "too long", code="context_length_exceeded"), PromptTooLong, 400),
    "broken": (rig.refused(500, "oops"), UpstreamRefused, 502),
    "a page": ([Whole(b"<html>", 503, {"Content-Type": "text/html"})], UpstreamRefused, 503),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("script", "kind", "status"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(
    provider: Provider,
    upstream: OpenAICompatibleUpstream,
    call: Call,
    script: Script,
    kind: type[UpstreamError],
    status: int,
    stream: bool,
) -> None:
    provider.script(CHAT, script)
    with pytest.raises(kind) as failed:
        upstream.chat(chat(stream), call)
    assert failed.value.status == status
    assert failed.value.retry_after_s == (7 if status == 429 else None)


STORY: Script = [
    Head(429, {"Content-Type": "application/json"}),
    Chunk(b'{"a":' * (1 << 20)),
    WaitForPeerClose(4),
]


def test_a_refusal_is_not_read_for_ever(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    for path in (CHAT, EMBEDDINGS, MODELS):
        provider.script(path, STORY)
    for ask in (
        upstream.models,
        partial(upstream.embed, embed()),
        partial(answered, upstream, chat()),
    ):
        with pytest.raises(UpstreamRefused) as refused:
            ask(call)
        assert (refused.value.status, len(str(refused.value))) == (429, 200)


def test_a_model_that_is_not_there_is_named(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    provider.script(CHAT, REFUSALS["unknown"][0])
    with pytest.raises(UpstreamRefused, match=re.escape(f"model '{MODEL}' not found")):
        upstream.chat(chat(), call)


def test_our_key_is_in_no_text(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    provider.script(CHAT, rig.refused(400, f"{rig.KEY} at {provider.url}/v1 is wrong"))
    with pytest.raises(UpstreamRefused) as failed:
        upstream.chat(chat(), call)
    assert str(failed.value) == "... at ... is wrong"


def test_nobody_there(provider: Provider, upstream: OpenAICompatibleUpstream, call: Call) -> None:
    provider.refuse()
    with pytest.raises(UpstreamConnect):
        upstream.chat(chat(), call)


def test_a_wrong_key_is_not_the_clients(provider: Provider, call: Call) -> None:
    with closing(built(provider, key="sk-another")) as upstream:
        with pytest.raises(UpstreamAuthError) as failed:
            upstream.chat(chat(), call)
        assert failed.value.status == 502
        with pytest.raises(UpstreamAuthError):
            upstream.version(call)


# Models that only stream.


def test_a_model_that_only_streams_by_the_configuration(provider: Provider, call: Call) -> None:
    with closing(built(provider, profile={"stream_only": ("org/*",)})) as upstream:
        assert answered(upstream, chat(False), call) == GREETING
    assert [body["stream"] for body in provider.bodies()] == [True]


def test_a_model_that_says_that_it_only_streams(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    refusal = rig.refused(
        400, "This model only support stream mode, please enable the stream parameter"
    )
    provider.script(CHAT, refusal, rig.said(stream=True))
    assert [answered(upstream, chat(False), call) for _ in range(2)] == [GREETING] * 2
    assert [body["stream"] for body in provider.bodies()] == [False, True, True]


def test_an_answer_that_was_filtered_is_in_the_log(
    provider: Provider,
    upstream: OpenAICompatibleUpstream,
    call: Call,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider.script(CHAT, rig.said("Hm", stream=True, finish="content_filter"))
    # By itself it may be one that tells nobody else.
    log.addHandler(caplog.handler)
    try:
        with caplog.at_level("INFO", log.name):
            answered(upstream, chat(), call)
    finally:
        log.removeHandler(caplog.handler)
    assert {
        str(vars(record)["fields"])
        for record in caplog.records
        if record.getMessage() == "answer_filtered"
    } == {str({"upstream": "lab", "model": MODEL})}


# Completions.


def test_a_prompt_is_a_chat_where_there_are_no_completions(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    asked = GenerateRequest(model=MODEL, prompt="hi", system="Be kind.", stream=True)
    assert answered(upstream, asked, call) == GREETING
    assert [each["role"] for each in provider.bodies()[0]["messages"]] == ["system", "user"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_is_completed_where_it_can_be(
    provider: Provider, call: Call, stream: bool
) -> None:
    with closing(built(provider, "vllm")) as upstream:
        assert (
            answered(upstream, GenerateRequest(model=MODEL, prompt="hi", stream=stream), call)
            == GREETING
        )
    assert provider.bodies(COMPLETIONS)[0]["prompt"] == "hi"


def test_a_system_prompt_needs_a_chat(provider: Provider, call: Call) -> None:
    with closing(built(provider, "vllm")) as upstream:
        answered(upstream, GenerateRequest(model=MODEL, prompt="hi", system="Be kind."), call)
    assert [request.path for request in provider.requests] == [CHAT]


def test_a_suffix_goes_where_gaps_are_filled(provider: Provider, call: Call) -> None:
    provider.script(
        "/v1/beta/completions", [Json({"choices": [{"text": "mid", "finish_reason": "stop"}]})]
    )
    with closing(built(provider, "deepseek")) as upstream:
        asked = GenerateRequest(model=MODEL, prompt="a", suffix="b", system="Be kind.")
        assert answered(upstream, asked, call).content == "mid"
    assert provider.bodies("/v1/beta/completions")[0]["suffix"] == "b"


def test_a_suffix_is_refused_elsewhere(upstream: OpenAICompatibleUpstream, call: Call) -> None:
    with pytest.raises(BadRequest, match=re.escape(f"{MODEL} does not support insert")):
        upstream.generate(GenerateRequest(model=MODEL, prompt="a", suffix="b"), call)


# Thoughts.

TOOLS = [Tool("f", None, {"type": "object"})]


@pytest.mark.parametrize("stream", [True, False])
def test_thoughts_that_led_to_a_call_go_back(provider: Provider, call: Call, stream: bool) -> None:
    """DeepSeek refuses a history without them, and most clients do not send them."""
    provider.script(
        CHAT, rig.said("", stream=stream, thinking="hm", calls=CALLS[:1]), rig.said(stream=stream)
    )
    with closing(built(provider, "deepseek")) as upstream:
        first = answered(upstream, chat(stream, tools=TOOLS), call)
        turn = Message("assistant", tool_calls=first.tool_calls)
        history = [Message("user", "hi"), turn, Message("tool", "F", tool_call_id="c1")]
        answered(upstream, chat(stream, messages=history, tools=TOOLS), call)
    assert provider.bodies()[1]["messages"][1]["reasoning_content"] == "hm"


# Models.

OPENROUTER = {
    "id": "a/b:free",
    "name": "A: B",
    "created": 5,
    "context_length": 9000,
    "architecture": {"input_modalities": ["text", "image"]},
    "supported_parameters": ["tools", "reasoning", "temperature"],
}
LISTS: dict[str, tuple[Any, list[Model]]] = {
    "openai": ({"object": "list", "data": [rig.row("a")]}, [Model("a", 1700000000, "lab")]),
    "openrouter": (
        {"data": [OPENROUTER]},
        [
            Model(
                "a/b:free", 5, "lab", frozenset({"completion", "tools", "thinking", "vision"}), 9000
            )
        ],
    ),
    "vllm": (
        {"data": [rig.row("a", max_model_len=4096)]},
        [Model("a", 1700000000, "lab", None, 4096)],
    ),
    "groq": (
        {"data": [rig.row("a", context_window=8192)]},
        [Model("a", 1700000000, "lab", None, 8192)],
    ),
    "together": (
        [{"id": "a", "type": "embedding", "context_length": 512}],
        [Model("a", 0, "lab", frozenset({"embedding"}), 512)],
    ),
    "llama.cpp": (
        {"models": [{"name": "x"}], "data": [{"id": "a", "meta": {"n_ctx_train": 2048}}]},
        [Model("a", 0, "lab", None, 2048)],
    ),
    "by name": (
        {"models": [{"name": "a"}, {"model": "b"}]},
        [Model("a", 0, "lab"), Model("b", 0, "lab")],
    ),
    "with what is none": (
        {"data": [None, {}, {"id": 1}, {"id": "a", "created": "x"}]},
        [Model("a", 0, "lab")],
    ),
    "none": ({"data": []}, []),
}


@pytest.mark.parametrize(("document", "expected"), LISTS.values(), ids=LISTS)
def test_lists_of_models(
    provider: Provider,
    upstream: OpenAICompatibleUpstream,
    call: Call,
    document: Any,
    expected: list[Model],
) -> None:
    provider.script(MODELS, [Json(document)])
    assert upstream.models(call) == expected


@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": "x"}, 7, "x"])
def test_lists_that_are_none(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, document: Any
) -> None:
    provider.script(MODELS, [Json(document)])
    with pytest.raises(UpstreamError):
        upstream.models(call)


def test_the_configuration_goes_before_the_list(provider: Provider, call: Call) -> None:
    declared = {
        "mine": UpstreamModel("a", ("completion",), 100),
        "other": UpstreamModel("c", ("vision",)),
    }
    provider.script(MODELS, [Json({"data": [rig.row("a", max_model_len=5), OPENROUTER]})])
    with closing(built(provider, models=declared)) as upstream:
        known = {
            model.name: (model.capabilities, model.context_length)
            for model in upstream.models(call)
        }
        told = [upstream.capabilities(name, call) for name in ("a", "a/b:free", "c", "unknown")]
    assert known["a"] == (frozenset({"completion"}), 100)
    assert known["a/b:free"][1] == 9000
    every = frozenset({"completion", "tools", "thinking", "vision"})
    assert told == [frozenset({"completion"}), every, frozenset({"vision"}), None]
    assert len([request for request in provider.requests if request.path == MODELS]) == 2


#: A list that takes longer than a look at it may.
SLOW_LIST: Script = [
    Head(200, {"Content-Type": "application/json"}),
    Chunk(b'{"data": ['),
    WaitForPeerClose(4),
]


@pytest.mark.parametrize(
    "script",
    [[Json({"data": []})], [Json({}, 404)], [Json({}, 500)], [Whole(b"<html>")], SLOW_LIST],
)
def test_it_is_there_whatever_it_answers(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, script: Script
) -> None:
    provider.script(MODELS, script)
    assert upstream.version(call) == ""


@pytest.mark.parametrize("status", [401, 403])
def test_it_can_not_be_used_where_it_does_not_know_us(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call, status: int
) -> None:
    provider.script(MODELS, [Json({}, status)])
    with pytest.raises(UpstreamAuthError):
        upstream.version(call)


def test_nothing_of_it_is_loaded(upstream: OpenAICompatibleUpstream, call: Call) -> None:
    assert (upstream.loaded(call), upstream.loaded_context(MODEL, call)) == ([], None)


def test_what_is_only_put_in_words_is_said(provider: Provider) -> None:
    with closing(built(provider, profile={"json_schema": False})) as upstream:
        assert upstream.list_approximated(chat(format={"type": "object"})) == ("format",)
        assert upstream.list_approximated(chat(format="json")) == ()


def test_fields_that_are_passed_on_are_known(upstream: OpenAICompatibleUpstream) -> None:
    assert upstream.select_passthrough(
        chat(passthrough_fields={"verbosity": "low", "unheard_of": 1})
    ) == {"verbosity"}


def test_closing_closes_the_connections(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    answered(upstream, chat(), call)
    assert upstream.connections == Connections(active=0, idle=1)
    upstream.close()
    wait_until(lambda: provider.connections_open == 0)


def test_an_answer_that_is_no_http(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    provider.script(CHAT, [Send(b"nonsense\r\n\r\n"), Cut()])
    with pytest.raises(UpstreamError):
        upstream.chat(chat(), call)
