"""The official Python client of Anthropic, synchronous and asynchronous: another base URL and
key, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from tests.golden.face import TOKEN, forwarded
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.gateway import Gateway
from tests.rig.pdf import in_base64, pdf
from tests.sdk.answers import replay, sent
from tests.sdk.clients import Clients, check_freed, have_model
from tests.sdk.samples import HELLO, PARAMETERS, PNG, QUESTION, UNICODE, City

ASKED: Any = [{"role": "user", "content": QUESTION}]
WEATHER: Any = {"name": "get_weather", "description": "Current weather", "input_schema": PARAMETERS}
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}
#: The limit that every request needs.
MAX = 2048
CLIENTS = Clients(anthropic.Anthropic, anthropic.AsyncAnthropic, "")
Open = Callable[..., Any]


def text_of(events: Any) -> str:
    """The text of the raw events of a stream."""
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    return "".join(delta.text for delta in deltas if delta.type == "text_delta")


def test_messages__single(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(...)"""
    recorded = replay(upstream, "chat-hello-single")
    answer = client.messages.create(
        model="tiny-test", messages=HELLO, max_tokens=MAX, system="Be brief."
    )
    [block] = answer.content
    assert (block.type, block.text) == ("text", recorded["message"]["content"])
    assert (answer.role, answer.stop_reason, answer.model) == ("assistant", "end_turn", "tiny-test")
    counts = (answer.usage.input_tokens, answer.usage.output_tokens)
    assert counts == (recorded["prompt_eval_count"], recorded["eval_count"])
    assert answer._request_id
    assert [message["role"] for message in sent(upstream)["messages"]] == ["system", "user"]


def test_messages__streaming(client: Any) -> None:
    """client.messages.create(stream=True)"""
    events = list(
        client.messages.create(model="hello", messages=HELLO, max_tokens=MAX, stream=True)
    )
    assert text_of(events) == "Hello there"
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


def test_messages__streaming__by_the_helper(plain: anthropic.Anthropic) -> None:
    """client.messages.stream(...)"""
    with plain.messages.stream(model="hello", messages=HELLO, max_tokens=MAX) as stream:
        events: Any = list(stream)
        final = stream.get_final_message()
    assert [event.text for event in events if event.type == "text"] == ["Hello", " there"]
    assert [event.type for event in events if event.type.startswith("message")][
        0
    ] == "message_start"
    assert [block.text for block in final.content if block.type == "text"] == ["Hello there"]
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == (
        "end_turn",
        7,
        3,
    )


def test_messages__async_streaming(gateway: Gateway) -> None:
    """AsyncAnthropic().messages.stream(...)"""

    async def run() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(
            base_url=gateway.url, api_key=TOKEN, max_retries=0
        ) as client:
            async with client.messages.stream(
                model="hello", messages=HELLO, max_tokens=MAX
            ) as stream:
                pieces = [piece async for piece in stream.text_stream]
                return "".join(pieces), await stream.get_final_text()

    assert asyncio.run(run()) == ("Hello there", "Hello there")


def test_messages__unicode(plain: anthropic.Anthropic) -> None:
    """client.messages.stream(...).text_stream

    The upstream's packets end in the middle of characters.
    """
    with plain.messages.stream(model="unicode", messages=HELLO, max_tokens=MAX) as stream:
        assert "".join(stream.text_stream) == UNICODE


def test_messages__thinking(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(thinking={"type": "enabled"})"""
    answer = client.messages.create(
        model="thinks", messages=HELLO, max_tokens=MAX, thinking=THINKING
    )
    thought, said = answer.content
    assert (thought.type, thought.thinking, said.text) == (
        "thinking",
        "Let me think.",
        "It is four.",
    )
    assert thought.signature
    assert sent(upstream)["think"] is True


def test_messages__thinking__sent_back(plain: anthropic.Anthropic, upstream: FaultUpstream) -> None:
    """client.messages.stream(thinking={"type": "enabled"})

    A streamed answer and its signature can be part of the next question.
    """
    with plain.messages.stream(
        model="thinks", messages=HELLO, max_tokens=MAX, thinking=THINKING
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    thought, _ = final.content
    assert thought.type == "thinking" and thought.thinking == "Let me think." and thought.signature
    assert {"thinking", "signature", "text"} <= set(kinds)
    history: Any = [*HELLO, {"role": "assistant", "content": final.content}, *HELLO]
    assert plain.messages.create(
        model="thinks", messages=history, max_tokens=MAX, thinking=THINKING
    ).content
    _, assistant, _ = sent(upstream)["messages"]
    assert (assistant["thinking"], assistant["content"]) == ("Let me think.", "It is four.")


def test_messages__one_tool(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(tools=[...])"""
    answer = client.messages.create(model="calls", messages=ASKED, max_tokens=MAX, tools=[WEATHER])
    said, call = answer.content
    assert (said.text, answer.stop_reason) == ("Let me look.", "tool_use")
    assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "北京"})
    assert sent(upstream)["tools"][0]["function"]["parameters"] == PARAMETERS


def test_messages__one_tool__as_a_stream(plain: anthropic.Anthropic) -> None:
    """client.messages.stream(tools=[...])

    The pieces of the arguments add up.
    """
    with plain.messages.stream(
        model="calls", messages=ASKED, max_tokens=MAX, tools=[WEATHER]
    ) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert snapshots[-1] == {"city": "北京"}
    assert [block.type for block in final.content] == ["text", "tool_use"]


def test_messages__parallel_tools(plain: anthropic.Anthropic) -> None:
    """client.messages.stream(tools=[...])"""
    with plain.messages.stream(
        model="calls-two", messages=ASKED, max_tokens=MAX, tools=[WEATHER]
    ) as stream:
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "北京"}]
    assert len({call.id for call in calls}) == 2
    assert final.stop_reason == "tool_use"


def test_messages__tool_round_trip(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(messages=[..., {"content": [{"type": "tool_result"}]}])"""
    first = client.messages.create(model="calls", messages=ASKED, max_tokens=MAX, tools=[WEATHER])
    [call] = [block for block in first.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}
    history = [
        *ASKED,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    answer = client.messages.create(
        model="calls", messages=history, max_tokens=MAX, tools=[WEATHER]
    )
    assert answer.content[0].text == "It is warm."
    _, assistant, tool = sent(upstream)["messages"]
    assert assistant["content"] == "Let me look."
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "北京"}
    assert (tool["role"], tool["tool_name"], tool["content"]) == (
        "tool",
        "get_weather",
        "18 degrees",
    )


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """Current weather of a city."""
    return f"18 degrees in {city}"


def test_messages__tool_runner(plain: anthropic.Anthropic, upstream: FaultUpstream) -> None:
    """client.beta.messages.tool_runner(tools=[function])"""
    runner = plain.beta.messages.tool_runner(
        model="calls", messages=ASKED, max_tokens=MAX, tools=[get_weather]
    )
    final = runner.until_done()
    assert [block.text for block in final.content if block.type == "text"] == ["It is warm."]
    assert sent(upstream)["messages"][-1]["content"] == "18 degrees in 北京"
    assert len(forwarded(upstream)) == 2


def test_messages__image(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(messages=[{"content": [{"type": "image"}]}])"""
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "Look"}]
    client.messages.create(
        model="hello", messages=[{"role": "user", "content": parts}], max_tokens=MAX
    )
    [message] = sent(upstream)["messages"]
    assert (message["content"], message["images"]) == ("Look", [PNG])


def test_messages__pdf(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(messages=[{"content": [{"type": "document"}]}])"""
    source = {
        "type": "base64",
        "media_type": "application/pdf",
        "data": in_base64(pdf("Some words.")),
    }
    parts = [
        {"type": "document", "source": source, "title": "a.pdf"},
        {"type": "text", "text": "Look"},
    ]
    client.messages.create(
        model="hello", messages=[{"role": "user", "content": parts}], max_tokens=MAX
    )
    [message] = sent(upstream)["messages"]
    assert (
        message["content"]
        == '[PDF "a.pdf", 1 page]\n[Page 1]\nSome words.\n[End of PDF "a.pdf"]\nLook'
    )


def test_messages__json_schema(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.parse(output_format=City)"""
    answer = client.messages.parse(model="city", messages=HELLO, max_tokens=MAX, output_format=City)
    assert answer.parsed_output == City(name="Paris", people=2)
    assert list(sent(upstream)["format"]["properties"]) == ["name", "people"]


def test_messages__length(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(max_tokens=3)"""
    assert (
        client.messages.create(model="length", messages=HELLO, max_tokens=3).stop_reason
        == "max_tokens"
    )
    assert sent(upstream)["options"] == {"num_predict": 3}


def test_messages__stop(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.create(stop_sequences=[...])"""
    client.messages.create(model="hello", messages=HELLO, max_tokens=MAX, stop_sequences=["END"])
    assert sent(upstream)["options"]["stop"] == ["END"]


def test_messages__usage(plain: anthropic.Anthropic, upstream: FaultUpstream) -> None:
    """client.messages.stream(...).get_final_message().usage"""
    recorded = replay(upstream, "chat-hello-stream")
    with plain.messages.stream(model="tiny-test", messages=HELLO, max_tokens=MAX) as stream:
        usage = stream.get_final_message().usage
    assert (usage.input_tokens, usage.output_tokens) == (
        recorded["prompt_eval_count"],
        recorded["eval_count"],
    )


def test_messages__count_tokens(client: Any, upstream: FaultUpstream) -> None:
    """client.messages.count_tokens(...)

    An estimate, for which no model is asked.
    """
    short = client.messages.count_tokens(model="hello", messages=HELLO).input_tokens
    longer = client.messages.count_tokens(
        model="hello", messages=HELLO, system="Be brief. " * 50, tools=[WEATHER]
    )
    assert 1 <= short < 20 < 100 < longer.input_tokens < 400
    assert [seen for seen in forwarded(upstream) if seen.path == "/api/chat"] == []


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_messages__error_before(
    status: int, kind: type[anthropic.APIStatusError], word: str, client: Any
) -> None:
    """client.messages.create(...)

    The class of the exception follows the status.
    """
    with pytest.raises(kind) as caught:
        client.messages.create(
            model=f"status-{status}", messages=HELLO, max_tokens=MAX, stream=True
        )
    error: Any = caught.value
    assert (error.status_code, error.body["error"]) == (
        status,
        {"type": word, "message": "what Ollama said"},
    )
    assert error.request_id == error.body["request_id"]


def test_messages__error_before__bad_field(client: Any) -> None:
    """client.messages.create(max_tokens=0)"""
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="hello", messages=HELLO, max_tokens=0)


def test_messages__error_in_the_middle(client: Any) -> None:
    """client.messages.create(stream=True)"""
    with pytest.raises(anthropic.APIStatusError, match="boom"):
        list(client.messages.create(model="boom", messages=HELLO, max_tokens=MAX, stream=True))


def test_messages__error_in_the_middle__by_the_helper(plain: anthropic.Anthropic) -> None:
    """client.messages.stream(...)"""
    with plain.messages.stream(model="boom", messages=HELLO, max_tokens=MAX) as stream:
        with pytest.raises(anthropic.APIStatusError, match="boom"):
            stream.until_done()
        assert [
            block.text for block in stream.current_message_snapshot.content if block.type == "text"
        ] == ["Hel"]


@pytest.mark.parametrize("model", ["ends-early", "cut"])
def test_messages__truncated(model: str, client: Any) -> None:
    """client.messages.create(stream=True)

    G04: an upstream that stops in the middle is never taken for success.
    """
    with pytest.raises(anthropic.APIStatusError, match="stopped in the middle"):
        list(client.messages.create(model=model, messages=HELLO, max_tokens=MAX, stream=True))


@pytest.mark.parametrize(("status", "arrivals"), [(400, 1), (404, 1), (429, 2), (500, 2)])
def test_messages__retries(
    status: int, arrivals: int, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """Anthropic(max_retries=1)

    The gateway itself repeats nothing: what arrives is one request and the client's one retry.
    """
    with pytest.raises(anthropic.APIStatusError):
        open_client(gateway, max_retries=1).messages.create(
            model=f"status-{status}", messages=HELLO, max_tokens=MAX
        )
    assert len(forwarded(upstream)) == arrivals


def test_messages__retries__until_it_works(
    open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """Anthropic(max_retries=2)"""
    answer = open_client(gateway, max_retries=2).messages.create(
        model="busy-twice", messages=HELLO, max_tokens=MAX
    )
    assert answer.content[0].text == "Hello there"
    assert len(forwarded(upstream)) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_messages__timeout(
    stream: bool, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """Anthropic(timeout=...)

    A client that loses its patience frees the upstream.
    """
    client = open_client(gateway, timeout=0.5)
    with pytest.raises(anthropic.APITimeoutError):
        client.messages.create(model="silent", messages=HELLO, max_tokens=MAX, stream=stream)
    check_freed(client, upstream)


def test_messages__leaving(plain: anthropic.Anthropic, upstream: FaultUpstream) -> None:
    """client.messages.stream(...).close()"""
    with plain.messages.stream(model="hangs", messages=HELLO, max_tokens=MAX) as stream:
        assert next(stream.text_stream) == "Hel"
    upstream.wait_peer_closed(forwarded(upstream)[-1].connection)


def test_messages__older_address(open_client: Open, gateway: Gateway) -> None:
    """Anthropic(base_url="http://gateway/anthropic")"""
    client = open_client(gateway, base_url=f"{gateway.url}/anthropic")
    answer = client.messages.create(model="hello", messages=HELLO, max_tokens=MAX)
    assert answer.content[0].text == "Hello there"


def test_messages__wrong_key(open_client: Open, gateway: Gateway) -> None:
    """Anthropic(api_key="wrong")"""
    client = open_client(gateway, api_key="wrong")
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(model="hello", messages=HELLO, max_tokens=MAX)
    error: Any = caught.value
    assert error.body["error"]["type"] == "authentication_error"


def test_messages__bearer_token(open_client: Open, gateway: Gateway) -> None:
    """Anthropic(auth_token=...)"""
    client = open_client(gateway, api_key=None, auth_token=TOKEN)
    assert client.messages.create(model="hello", messages=HELLO, max_tokens=MAX).content


def test_messages__demo(demo: Any) -> None:
    """client.messages.create(model="demo")"""
    single = demo.messages.create(model="demo", messages=HELLO, max_tokens=MAX).content[0].text
    assert (
        text_of(demo.messages.create(model="demo", messages=HELLO, max_tokens=MAX, stream=True))
        == single
    )
    assert "demo" in single


def test_messages__demo__with_tools_and_thinking(demo: Any) -> None:
    """client.messages.create(model="demo", tools=[...], thinking={"type": "enabled"})"""
    answer = demo.messages.create(
        model="demo", messages=ASKED, max_tokens=MAX, tools=[WEATHER], thinking=THINKING
    )
    assert [block.type for block in answer.content] == ["thinking", "tool_use"]


def test_models__list(client: Any, upstream: FaultUpstream) -> None:
    """client.models.list()"""
    names = ["tiny-test:latest", "ns/m:v1"]
    upstream.script("/api/tags", [Json({"models": [{"name": name} for name in names]})])
    page = client.models.list()
    listed = page if isinstance(page, list) else list(page)
    assert [(model.id, model.type, model.display_name) for model in listed] == [
        (n, "model", n) for n in names
    ]


@pytest.mark.parametrize("name", ["tiny-test", "ns/m:v1"])
def test_models__retrieve(name: str, client: Any, upstream: FaultUpstream) -> None:
    """client.models.retrieve(...)"""
    have_model(upstream, name)
    assert client.models.retrieve(name).id == name
