"""A provider of the Messages API over real sockets: what it is asked, and what
comes of its answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from ollama_proxy.errors import (
    BadRequest,
    PromptTooLong,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.hub import (
    ChatRequest,
    EmbedRequest,
    Event,
    GenerateRequest,
    Message,
    Tool,
    ToolCall,
)
from ollama_proxy.settings.upstreams import Timeouts, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams import cache
from ollama_proxy.upstreams.anthropic.codec import DEFAULT_TOKENS
from ollama_proxy.upstreams.anthropic.upstream import VERSION, AnthropicUpstream, build
from ollama_proxy.upstreams.base import Connections, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.session import HttpTransport
from tests.rig import messages_provider as rig
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, Head, Json, Script, Wait, WaitForPeerClose, Whole
from tests.rig.fixtures import function_fixture
from tests.rig.messages_provider import HELLO, MESSAGES, MODEL, MODELS, MessagesProvider
from tests.unit.upstreams.stock import answered, batches

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
USE = {"type": "tool_use", "id": "toolu_0123456789abcdef", "name": "f", "input": {"a": 1}}


provider = function_fixture(MessagesProvider)


@pytest.fixture
def upstream(provider: MessagesProvider) -> Iterator[AnthropicUpstream]:
    """Behind that provider, with no answer left open when the test is over."""
    with closing(built(provider.url)) as one:
        yield one
        assert one.connections.active == 0


def built(url: str, key: str | None = rig.KEY, **settings: Any) -> AnthropicUpstream:
    declared = UpstreamSettings(name="claude", kind="anthropic", base_url=url, **settings)
    return build(declared, key, HttpTransport)


def chat(stream: bool = True, **fields: Any) -> ChatRequest:
    return ChatRequest(
        model=MODEL, stream=stream, **{"messages": [Message("user", "Hi")], **fields}
    )


@pytest.mark.parametrize("stream", [True, False])
def test_chat_is_asked_with_the_key_and_the_version(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call, stream: bool
) -> None:
    assert answered(upstream, chat(stream), call).content == "Hello!"
    [seen] = provider.asked
    assert (seen.method, seen.raw_path) == ("POST", MESSAGES)
    assert (seen.header("x-api-key"), seen.header("anthropic-version")) == (rig.KEY, VERSION)
    assert seen.header("accept") == ("text/event-stream" if stream else "application/json")
    assert (seen.header("authorization"), seen.header("content-type")) == (None, "application/json")
    assert seen.json()["stream"] is stream


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_base_url_may_end_as_it_does_for_other_apis(
    provider: MessagesProvider, call: Call, ending: str
) -> None:
    with closing(built(provider.url + ending, None)) as upstream:
        assert answered(upstream, chat(), call).content == "Hello!"
    [seen] = provider.asked
    assert (seen.raw_path, seen.header("x-api-key")) == (MESSAGES, None)


def test_base_url_may_have_a_path(provider: MessagesProvider, call: Call) -> None:
    provider.script(f"/api/anthropic{MESSAGES}", rig.said(stream=True))
    with closing(built(f"{provider.url}/api/anthropic")) as upstream:
        assert answered(upstream, chat(), call).content == "Hello!"


@pytest.mark.parametrize("edges", [1, 2, 7, 50, None])
def test_stream_says_the_same_however_its_packets_are_cut(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call, edges: int | None
) -> None:
    blocks = [THOUGHT, {"type": "text", "text": "你好 🎉"}, USE]
    provider.script(MESSAGES, rig.said(blocks, "tool_use", stream=True, edges=edges))
    answer = answered(upstream, chat(), call)
    assert (answer.thinking, answer.content) == ("Hm.", "你好 🎉")
    assert answer.tool_calls == [ToolCall(USE["id"], "f", {"a": 1})]
    assert (answer.done.prompt_eval_count, answer.done.eval_count) == (12, 6)


def test_connection_is_kept_for_the_next_answer(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    for _ in range(3):
        answered(upstream, chat(), call)
    assert len({seen.connection for seen in provider.asked}) == 1
    assert upstream.connections == Connections(active=0, idle=1)


def test_text_is_there_before_the_answer_is_over(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    provider.script(MESSAGES, [*rig.streamed(list(rig.events(HELLO))[:4]), WaitForPeerClose()])
    with closing(upstream.chat(chat(), call)) as events:
        assert [event for event in next(iter(events)) if event]
    wait_until(lambda: provider.connections_open == 0 or provider.wait_event("peer_closed"))


def test_silence_is_told_as_empty_batches(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    provider.script(MESSAGES, [Wait(1.0), *rig.said(stream=True)])
    told = batches(upstream, chat(), call, heartbeat_s=0.2)
    assert [] in [list(batch) for batch in told] and told[-1]


def test_pings_keep_a_stream_alive(provider: MessagesProvider, upstream: AnthropicUpstream) -> None:
    ping: Script = rig.streamed([{"type": "ping"}])[1:]
    provider.script(
        MESSAGES, [*rig.streamed([]), *([Wait(0.1), *ping] * 8), *rig.said(stream=True)[1:]]
    )
    assert answered(upstream, chat(), Call(Timeouts(idle_s=0.5, total_s=5))).content == "Hello!"


def test_silence_has_its_limit(provider: MessagesProvider, upstream: AnthropicUpstream) -> None:
    provider.script(MESSAGES, [*rig.streamed(list(rig.events(HELLO))[:4]), WaitForPeerClose()])
    with pytest.raises(UpstreamTimeout):
        answered(upstream, chat(), Call(Timeouts(idle_s=0.1, total_s=5)))


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_answer_that_is_cut_is_no_answer(
    provider: MessagesProvider,
    upstream: AnthropicUpstream,
    call: Call,
    stream: bool,
    is_clean: bool,
) -> None:
    if stream:
        script = rig.streamed(list(rig.events(HELLO))[:-1], cut=not is_clean)
    else:
        script = [Json(rig.message(HELLO) | {"stop_reason": None})]
    provider.script(MESSAGES, script)
    with pytest.raises(UpstreamCut):
        answered(upstream, chat(stream), call)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            rig.refused(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            PromptTooLong,
        ),
        (rig.refused(404, "not_found_error", f"model: {MODEL}"), UpstreamRefused),
        (rig.refused(429, "rate_limit_error", "Slow down", {"retry-after": "7"}), UpstreamRefused),
        (rig.refused(529, "overloaded_error", "Overloaded"), UpstreamRefused),
        (
            rig.refused(401, "authentication_error", f"invalid x-api-key {rig.KEY}"),
            UpstreamAuthError,
        ),
        ([Whole(b"<html>Bad gateway</html>", 502)], UpstreamError),
        ([Whole(b"<html>Welcome</html>", 200)], UpstreamError),
        ([Head(200, {"Content-Type": "text/event-stream"})], UpstreamError),
    ],
)
def test_refusal_is_told_as_ours(
    provider: MessagesProvider,
    upstream: AnthropicUpstream,
    call: Call,
    script: Script,
    error: type[UpstreamError],
    stream: bool,
) -> None:
    provider.script(MESSAGES, script)
    with pytest.raises(error) as found:
        answered(upstream, chat(stream), call)
    assert rig.KEY not in f"{found.value}{found.value.detail}" and "html" not in str(found.value)
    if found.value.status == 429:
        assert found.value.retry_after_s == 7


def test_refusal_is_not_read_for_ever(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    story: Script = [
        Head(529, {"Content-Type": "application/json"}),
        Chunk(b" " * (2 << 20)),
        WaitForPeerClose(4),
    ]
    for path in (MESSAGES, MODELS):
        provider.script(path, story)
    for ask in (upstream.models, partial(answered, upstream, chat())):
        with pytest.raises(UpstreamError) as found:
            ask(call)
        assert not isinstance(found.value, UpstreamTimeout)


def test_late_refusal_is_one_as_well(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    provider.script(MESSAGES, [Wait(1.0), *rig.refused(529, "overloaded_error", "Overloaded")])
    with pytest.raises(UpstreamRefused, match="Overloaded"):
        batches(upstream, chat(), call, heartbeat_s=0.2)


def test_error_in_a_stream_comes_behind_what_was_said(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    said = [*list(rig.events(HELLO))[:5], rig.error("overloaded_error", "Overloaded")]
    provider.script(MESSAGES, rig.streamed(said))
    told: list[Event] = []
    with (
        closing(upstream.chat(chat(), call)) as events,
        pytest.raises(UpstreamRefused, match="Overloaded") as found,
    ):
        for batch in events:
            told += batch
    assert (
        "".join(getattr(event, "text", "") for event in told) == "Hello!"
        and found.value.status == 529
    )


# Thinking and tools.


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_comes_back_signed_with_the_results_of_its_calls(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call, stream: bool
) -> None:
    provider.script(
        MESSAGES, rig.said([THOUGHT, USE], "tool_use", stream=stream), rig.said(stream=stream)
    )
    tools = [Tool("f", None, None)]
    first = answered(upstream, chat(stream, think=True, tools=tools), call)
    spoken = Message(
        "assistant", first.content, thinking=first.thinking, tool_calls=first.tool_calls
    )
    history = [Message("user", "Hi"), spoken, Message("tool", "4", tool_call_id=USE["id"])]
    answered(upstream, chat(stream, messages=history, think=True, tools=tools), call)
    said = provider.asked[1].json()["messages"]
    assert said[1] == {"role": "assistant", "content": [THOUGHT, USE]}
    assert said[2]["content"][0]["tool_use_id"] == USE["id"]


def test_switches_follow_what_the_provider_tells_of_its_models(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    asked = chat(think=True, options={"temperature": 0.5})
    answered(upstream, asked, call)
    [seen] = provider.asked
    assert seen.json()["thinking"]["type"] == "adaptive" and seen.json()["max_tokens"] == 64_000
    assert upstream.list_approximated(asked) == ("temperature",)


def test_fields_that_go_on_have_their_names_told(upstream: AnthropicUpstream) -> None:
    carried = {"service_tier": "auto", "cache_control": {"type": "ephemeral"}, "container": "c"}
    assert upstream.select_passthrough(chat(passthrough_fields=carried)) == {
        "service_tier",
        "cache_control",
    }


def test_models_are_asked_for_once_for_all_chats(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    for _ in range(3):
        answered(upstream, chat(), call)
    assert [seen.raw_path for seen in provider.requests if seen.path == MODELS] == [
        f"{MODELS}?limit=1000"
    ]


@pytest.mark.parametrize(
    "script",
    [
        rig.refused(404, "not_found_error", "Not found"),
        [Whole(b"404 page not found", 404)],
        [Json({})],
    ],
)
def test_server_without_a_list_gets_what_every_server_takes(
    provider: MessagesProvider,
    upstream: AnthropicUpstream,
    call: Call,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # That it has none is no failure, so it is believed for as long as a list.
    monkeypatch.setattr(cache, "UNKNOWN_KEPT_S", 0.0)
    provider.script(MODELS, script)
    for _ in range(2):
        answered(upstream, chat(options={"temperature": 0.5}), call)
    assert [seen.json()["max_tokens"] for seen in provider.asked] == [DEFAULT_TOKENS] * 2
    assert len([seen for seen in provider.requests if seen.path == MODELS]) == 1
    assert upstream.capabilities(MODEL, call) is None


# The rest of an upstream.


def test_completion_is_a_chat_of_one_message(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    assert (
        answered(upstream, GenerateRequest(model=MODEL, prompt="Once", stream=True), call).content
        == "Hello!"
    )
    assert provider.asked[0].json()["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Once"}]}
    ]


def test_what_the_api_can_not_do_is_refused_without_asking(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    with pytest.raises(BadRequest, match=f"^{MODEL} does not support insert$"):
        upstream.generate(GenerateRequest(model=MODEL, prompt="a", suffix="b"), call)
    with pytest.raises(BadRequest, match=f"^{MODEL} does not support embeddings$"):
        upstream.embed(EmbedRequest(model=MODEL, input=["a"]), call)
    with pytest.raises(UpstreamError):
        upstream.forward(UpstreamRequest("POST", MESSAGES), call)
    assert provider.asked == []


def test_all_pages_of_the_list_are_read(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    first = [Json(rig.page(rig.row("a"), rig.row("b/1"), more=True))]
    provider.script(MODELS, first, [Json(rig.page(rig.row("c", kinds=())))])
    listed = upstream.models(call)
    assert [(model.name, model.owned_by) for model in listed] == [
        ("a", "claude"),
        ("b/1", "claude"),
        ("c", "claude"),
    ]
    assert [seen.raw_path for seen in provider.requests] == [
        f"{MODELS}?limit=1000",
        f"{MODELS}?limit=1000&after_id=b%2F1",
    ]
    assert upstream.capabilities("c", call) == {"completion", "tools", "vision"}
    assert len(provider.requests) == 2


def test_list_that_never_ends_is_read_for_a_while(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    provider.script(MODELS, [Json(rig.page(rig.row("a"), more=True))])
    assert len(upstream.models(call)) == 20


def test_capabilities_are_those_of_the_configuration_first(
    provider: MessagesProvider, call: Call
) -> None:
    models = {"fast": UpstreamModel(MODEL, ("completion", "tools"))}
    with closing(built(provider.url, models=models)) as upstream:
        assert upstream.capabilities(MODEL, call) == {"completion", "tools"}
        with pytest.raises(BadRequest, match=re.escape(f'"{MODEL}" does not support thinking')):
            upstream.chat(chat(think=True), call)


@pytest.mark.parametrize(
    "script",
    [
        [Json(rig.page(rig.row()))],
        rig.refused(404, "not_found_error", "Not found"),
        rig.refused(529, "overloaded_error", "Overloaded"),
        [Whole(b"<html>", 405)],
        [
            Head(200, {"Content-Type": "application/json"}),
            Chunk(b'{"data": ['),
            WaitForPeerClose(4),
        ],
    ],
)
def test_provider_that_says_anything_is_there(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call, script: Script
) -> None:
    provider.script(MODELS, script)
    assert upstream.version(call) == ""


@pytest.mark.parametrize("status", [401, 403])
def test_provider_that_does_not_take_our_key_can_not_be_used(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call, status: int
) -> None:
    provider.script(MODELS, rig.refused(status, "authentication_error", "invalid x-api-key"))
    with pytest.raises(UpstreamAuthError):
        upstream.version(call)
    with pytest.raises(UpstreamAuthError):
        upstream.models(call)


def test_provider_that_is_gone_can_not_be_used(
    provider: MessagesProvider, upstream: AnthropicUpstream, call: Call
) -> None:
    provider.refuse()
    with pytest.raises(UpstreamConnect):
        upstream.version(call)
    with pytest.raises(UpstreamConnect):
        upstream.chat(chat(), call)


def test_nothing_is_ever_loaded_there(upstream: AnthropicUpstream, call: Call) -> None:
    assert (upstream.loaded(call), upstream.loaded_context(MODEL, call), upstream.api) == (
        [],
        None,
        None,
    )
