"""The official Python client of OpenAI with the Responses API, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.golden.face import TOKEN, forwarded
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.pdf import in_base64, pdf
from tests.sdk.answers import replay, sent
from tests.sdk.clients import Clients, check_freed, each_error
from tests.sdk.samples import PARAMETERS, PICTURE_URL, PNG, QUESTION, UNICODE, City

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Current weather",
    "parameters": PARAMETERS,
    "strict": False,
}
SEALED: Any = ["reasoning.encrypted_content"]
CLIENTS = Clients(openai.OpenAI, openai.AsyncOpenAI, "/v1")
Open = Callable[..., Any]


def text_of(events: Any) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_responses__single(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(...)"""
    recorded = replay(upstream, "chat-hello-single")
    answer = client.responses.create(model="tiny-test", input="Hello!", instructions="Be brief.")
    assert (answer.output_text, answer.status) == (recorded["message"]["content"], "completed")
    counts = (answer.usage.input_tokens, answer.usage.output_tokens)
    assert counts == (recorded["prompt_eval_count"], recorded["eval_count"])
    assert [message["role"] for message in sent(upstream)["messages"]] == ["system", "user"]
    assert answer._request_id


def test_responses__streaming(client: Any) -> None:
    """client.responses.create(stream=True)"""
    events = list(client.responses.create(model="hello", input="Hello!", stream=True))
    assert text_of(events) == "Hello there"
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_responses__streaming__by_the_helper(plain: openai.OpenAI) -> None:
    """client.responses.stream(...)"""
    with plain.responses.stream(model="hello", input="Hello!") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert (text_of(events), final.output_text, final.status) == (
        "Hello there",
        "Hello there",
        "completed",
    )


def test_responses__async_streaming(gateway: Gateway) -> None:
    """AsyncOpenAI().responses.stream(...)"""

    async def run() -> str:
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0
        ) as client:
            async with client.responses.stream(model="hello", input="Hello!") as stream:
                return (await stream.get_final_response()).output_text

    assert asyncio.run(run()) == "Hello there"


def test_responses__unicode(plain: openai.OpenAI) -> None:
    """client.responses.stream(...)

    The upstream's packets end in the middle of characters.
    """
    with plain.responses.stream(model="unicode", input="Hello!") as stream:
        assert text_of(stream) == UNICODE


def test_responses__thinking(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(reasoning={"effort": "low"})"""
    answer = client.responses.create(model="thinks", input="2 + 2?", reasoning={"effort": "low"})
    thought, said = answer.output
    assert (thought.type, said.type, answer.output_text) == ("reasoning", "message", "It is four.")
    assert [part.text for part in thought.content] == ["Let me think."]
    assert sent(upstream)["think"] == "low"


def test_responses__thinking__sent_back(plain: openai.OpenAI, upstream: FaultUpstream) -> None:
    """client.responses.stream(include=["reasoning.encrypted_content"])

    Without a store the thinking travels with the client.
    """
    question: Any = {"role": "user", "content": "2 + 2?"}
    with plain.responses.stream(model="thinks", input=[question], include=SEALED) as stream:
        final: Any = stream.get_final_response()
    assert final.output[0].encrypted_content
    history = [question, *(item.to_dict() for item in final.output), question]
    assert plain.responses.create(model="thinks", input=history, include=SEALED).output
    _, assistant, _ = sent(upstream)["messages"]
    assert (assistant["thinking"], assistant["content"]) == ("Let me think.", "It is four.")


def test_responses__one_tool(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(tools=[...])"""
    answer = client.responses.create(model="calls", input=QUESTION, tools=[WEATHER])
    said, call = answer.output
    assert (said.type, answer.output_text) == ("message", "Let me look.")
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "get_weather",
        {"city": "北京"},
    )
    assert sent(upstream)["tools"][0]["function"]["parameters"] == PARAMETERS


def test_responses__parallel_tools(plain: openai.OpenAI) -> None:
    """client.responses.stream(tools=[...])"""
    with plain.responses.stream(model="calls-two", input=QUESTION, tools=[WEATHER]) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        final = stream.get_final_response()
    assert [json.loads(event.arguments) for event in done] == [{"city": "Paris"}, {"city": "北京"}]
    assert len({item.call_id for item in final.output if item.type == "function_call"}) == 2


def test_responses__tool_round_trip(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(input=[..., *output, {"type": "function_call_output"}])"""
    question: Any = {"role": "user", "content": QUESTION}
    first = client.responses.create(model="calls", input=[question], tools=[WEATHER])
    [call] = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    answer = client.responses.create(
        model="calls", input=[question, *first.output, result], tools=[WEATHER]
    )
    assert answer.output_text == "It is warm."
    _, assistant, tool = sent(upstream)["messages"]
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "北京"}
    assert (tool["tool_name"], tool["content"]) == ("get_weather", "18 degrees")


def test_responses__image(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(input=[{"content": [{"type": "input_image"}]}])"""
    parts = [
        {"type": "input_text", "text": "Look"},
        {"type": "input_image", "image_url": PICTURE_URL},
    ]
    client.responses.create(model="hello", input=[{"role": "user", "content": parts}])
    [message] = sent(upstream)["messages"]
    assert (message["content"], message["images"]) == ("Look", [PNG])


def test_responses__pdf(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(input=[{"content": [{"type": "input_file"}]}])"""
    data = f"data:application/pdf;base64,{in_base64(pdf('Some words.'))}"
    parts = [
        {"type": "input_text", "text": "Look"},
        {"type": "input_file", "filename": "a.pdf", "file_data": data},
    ]
    client.responses.create(model="hello", input=[{"role": "user", "content": parts}])
    [message] = sent(upstream)["messages"]
    assert (
        message["content"]
        == 'Look\n[PDF "a.pdf", 1 page]\n[Page 1]\nSome words.\n[End of PDF "a.pdf"]'
    )


def test_responses__json_schema(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.parse(text_format=City)"""
    answer = client.responses.parse(model="city", input="Hello!", text_format=City)
    assert answer.output_parsed == City(name="Paris", people=2)
    assert list(sent(upstream)["format"]["properties"]) == ["name", "people"]


def test_responses__json_schema__as_a_stream(plain: openai.OpenAI) -> None:
    """client.responses.stream(text_format=City)"""
    with plain.responses.stream(model="city", input="Hello!", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(name="Paris", people=2)


def test_responses__length(client: Any, upstream: FaultUpstream) -> None:
    """client.responses.create(max_output_tokens=3)"""
    answer = client.responses.create(model="length", input="Hello!", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert sent(upstream)["options"] == {"num_predict": 3}


def test_responses__length__as_a_stream(client: Any) -> None:
    """client.responses.create(max_output_tokens=3, stream=True)"""
    events = list(
        client.responses.create(model="length", input="Hello!", max_output_tokens=3, stream=True)
    )
    assert (events[-1].type, events[-1].response.status) == ("response.incomplete", "incomplete")
    assert "response.completed" not in {event.type for event in events}


@each_error(openai)
def test_responses__error_before(
    status: int, kind: type[openai.APIStatusError], client: Any
) -> None:
    """client.responses.create(...)"""
    with pytest.raises(kind) as caught:
        client.responses.create(model=f"status-{status}", input="Hello!", stream=True)
    assert (caught.value.status_code, caught.value.body["message"]) == (status, "what Ollama said")


def test_responses__error_before__state(client: Any) -> None:
    """client.responses.create(previous_response_id=...)

    Nothing is stored, and the client is told so.
    """
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="hello", input="Hello!", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


def test_responses__error_before__stored_answers(client: Any) -> None:
    """client.responses.retrieve(...)"""
    with pytest.raises(openai.NotFoundError, match="stores"):
        client.responses.retrieve("resp_1")


def test_responses__error_in_the_middle(client: Any) -> None:
    """client.responses.create(stream=True)"""
    events = list(client.responses.create(model="boom", input="Hello!", stream=True))
    assert (events[-1].type, events[-1].response.status) == ("response.failed", "failed")
    assert "boom" in events[-1].response.error.message
    assert text_of(events) == "Hel"


@pytest.mark.parametrize("model", ["ends-early", "cut"])
def test_responses__truncated(model: str, client: Any) -> None:
    """client.responses.create(stream=True)

    G04: an upstream that stops in the middle is never taken for success.
    """
    events = list(client.responses.create(model=model, input="Hello!", stream=True))
    assert events[-1].type == "response.failed"
    assert "stopped in the middle" in events[-1].response.error.message
    assert "response.completed" not in {event.type for event in events}


@pytest.mark.parametrize(("status", "arrivals"), [(400, 1), (429, 2), (500, 2)])
def test_responses__retries(
    status: int, arrivals: int, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """OpenAI(max_retries=1)"""
    with pytest.raises(openai.APIStatusError):
        open_client(gateway, max_retries=1).responses.create(
            model=f"status-{status}", input="Hello!"
        )
    assert len(forwarded(upstream)) == arrivals


@pytest.mark.parametrize("stream", [False, True])
def test_responses__timeout(
    stream: bool, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """OpenAI(timeout=...)"""
    client = open_client(gateway, timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.responses.create(model="silent", input="Hello!", stream=stream)
    check_freed(client, upstream)


def test_responses__leaving(plain: openai.OpenAI, upstream: FaultUpstream) -> None:
    """client.responses.create(stream=True).close()"""
    with plain.responses.create(model="hangs", input="Hello!", stream=True) as stream:
        next(event for event in stream if event.type == "response.output_text.delta")
    upstream.wait_peer_closed(forwarded(upstream)[-1].connection)


def test_responses__demo(demo: Any) -> None:
    """client.responses.create(model="demo")"""
    single = demo.responses.create(model="demo", input="Hello!").output_text
    assert text_of(demo.responses.create(model="demo", input="Hello!", stream=True)) == single
    assert "demo" in single
