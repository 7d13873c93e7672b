"""The official Python client of OpenAI, synchronous and asynchronous: another base URL and
key, and nothing else."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

import openai
import pytest

from ollama_proxy.upstreams.forms import read_form
from tests.golden.cases import Case, cases
from tests.golden.face import TOKEN, forwarded
from tests.rig import NDJSON
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json
from tests.rig.gateway import Gateway
from tests.rig.pdf import in_base64, pdf
from tests.rig.tables import check_rows
from tests.sdk.answers import replay, sent
from tests.sdk.clients import Clients, check_freed, each_error, have_model
from tests.sdk.samples import HELLO, LOOK, PNG, QUESTION, UNICODE, WEATHER, City

CASES = {case.name: case for case in cases("openai")}
CHATS = [
    case for case in CASES.values() if case.is_complete and case.path == "/v1/chat/completions"
]
#: What the client's own helper refuses to send: it checks images and formats itself.
HELPED = [case for case in CHATS if "image" not in case.name]
ASKED: Any = [{"role": "user", "content": QUESTION}]
CLIENTS = Clients(openai.OpenAI, openai.AsyncOpenAI, "/v1")
Open = Callable[..., Any]
TRANSCRIPTIONS = "/v1/audio/transcriptions"


def stream_case(upstream: FaultUpstream, case: Case) -> None:
    upstream.script(case.upstream_path, [Head(200, NDJSON), Chunk(case.lines)])


def text_of(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_chat__single(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(...)"""
    recorded = replay(upstream, "chat-hello-single")
    answer = client.chat.completions.create(model="tiny-test", messages=HELLO)
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == (
        "assistant",
        recorded["message"]["content"],
    )
    assert (choice.finish_reason, answer.object, answer.model) == (
        "stop",
        "chat.completion",
        "tiny-test",
    )
    assert answer.usage.completion_tokens == recorded["eval_count"]
    assert answer.usage.total_tokens == recorded["eval_count"] + recorded["prompt_eval_count"]
    assert answer._request_id


def test_chat__streaming(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(stream=True)"""

    def check(case: Case) -> None:
        stream_case(upstream, case)
        chunks = list(client.chat.completions.create(**case.request, stream=True))
        [expected] = case.expected_single["choices"]
        assert text_of(chunks) == (expected["message"]["content"] or "")
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        assert [reason for reason in reasons if reason] == [expected["finish_reason"]]

    check_rows([(case,) for case in CHATS], check)


@pytest.mark.parametrize("case", HELPED, ids=lambda case: case.name)
def test_chat__streaming__by_the_helper(
    case: Case, plain: openai.OpenAI, upstream: FaultUpstream
) -> None:
    """client.chat.completions.stream(...)

    The helpers are the strictest readers: role once, dense indexes, one finish.
    """
    stream_case(upstream, case)
    request = {name: value for name, value in case.request.items() if name != "response_format"}
    with plain.chat.completions.stream(**request) as stream:
        kinds = [event.type for event in stream]
        if case.expected_single["choices"][0]["finish_reason"] == "length":
            final: Any = stream.current_completion_snapshot
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
    called = [
        (call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()
    ]
    assert called == [
        (c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())
    ]


@pytest.mark.parametrize("name", ["plain", "tools-parallel", "tools-missing-ids", "thinking"])
def test_chat__async_streaming(name: str, gateway: Gateway, upstream: FaultUpstream) -> None:
    """AsyncOpenAI().chat.completions.stream(...)"""
    case = CASES[name]
    stream_case(upstream, case)

    async def run() -> Any:
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0
        ) as client:
            async with client.chat.completions.stream(**case.request) as stream:
                return await stream.get_final_completion()

    check_final(asyncio.run(run()), case)


def test_chat__unicode(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(stream=True)

    The upstream's packets end in the middle of characters.
    """
    chunks = client.chat.completions.create(model="unicode", messages=HELLO, stream=True)
    assert text_of(chunks) == UNICODE


def test_chat__thinking(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(reasoning_effort=...)

    It has both names that clients look for.
    """
    recorded = replay(upstream, "chat-think-single")
    answer = client.chat.completions.create(
        model="tiny-test", messages=HELLO, reasoning_effort="low"
    )
    message = answer.choices[0].message
    assert message.reasoning == message.reasoning_content == recorded["message"]["thinking"]
    assert sent(upstream)["think"] == "low"


def test_chat__one_tool(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(tools=[...])"""
    answer = client.chat.completions.create(model="calls", messages=ASKED, tools=[WEATHER])
    [choice] = answer.choices
    [call] = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "北京"},
    )
    assert sent(upstream)["tools"][0]["function"]["parameters"] == WEATHER["function"]["parameters"]


def test_chat__parallel_tools(plain: openai.OpenAI, upstream: FaultUpstream) -> None:
    """client.chat.completions.stream(tools=[...])"""
    with plain.chat.completions.stream(
        model="calls-two", messages=ASKED, tools=[WEATHER]
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert [json.loads(event.arguments) for event in done] == [{"city": "Paris"}, {"city": "北京"}]
    assert [event.index for event in done] == [0, 1]
    assert len({call.id for call in calls}) == 2


def test_chat__tool_round_trip(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(messages=[..., message, {"role": "tool"}])"""
    message = (
        client.chat.completions.create(model="calls", messages=ASKED, tools=[WEATHER])
        .choices[0]
        .message
    )
    [call] = message.tool_calls
    history = [*ASKED, message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}]
    answer = client.chat.completions.create(model="calls", messages=history, tools=[WEATHER])
    assert answer.choices[0].message.content == "It is warm."
    _, assistant, tool = sent(upstream)["messages"]
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"city": "北京"}
    assert (tool["tool_name"], tool["tool_call_id"], tool["content"]) == (
        "get_weather",
        call.id,
        "18 degrees",
    )


def test_chat__image(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(messages=[{"content": [{"type": "image_url"}]}])"""
    assert client.chat.completions.create(model="hello", messages=LOOK).choices
    [message] = sent(upstream)["messages"]
    assert (message["content"], message["images"]) == ("Look", [PNG])


def test_chat__pdf(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(messages=[{"content": [{"type": "file"}]}])"""
    file = {
        "filename": "a.pdf",
        "file_data": f"data:application/pdf;base64,{in_base64(pdf('Some words.'))}",
    }
    parts = [{"type": "text", "text": "Look"}, {"type": "file", "file": file}]
    assert client.chat.completions.create(
        model="hello", messages=[{"role": "user", "content": parts}]
    ).choices
    [message] = sent(upstream)["messages"]
    assert (
        message["content"]
        == 'Look\n[PDF "a.pdf", 1 page]\n[Page 1]\nSome words.\n[End of PDF "a.pdf"]'
    )


def test_chat__json_schema(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.parse(response_format=City)"""
    answer = client.chat.completions.parse(model="city", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris", people=2)
    assert list(sent(upstream)["format"]["properties"]) == ["name", "people"]


def test_chat__json_schema__as_a_stream(plain: openai.OpenAI, upstream: FaultUpstream) -> None:
    """client.chat.completions.stream(response_format=City)"""
    with plain.chat.completions.stream(
        model="city", messages=HELLO, response_format=City
    ) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert parsed == City(name="Paris", people=2)


def test_chat__length(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.parse(max_tokens=...)

    An answer that was cut off is said so and not taken for a broken one.
    """
    with pytest.raises(openai.LengthFinishReasonError) as caught:
        client.chat.completions.parse(
            model="length", messages=HELLO, response_format=City, max_tokens=3
        )
    assert caught.value.completion.choices[0].finish_reason == "length"
    assert sent(upstream)["options"] == {"num_predict": 3}


def test_chat__stop(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(stop=...)"""
    assert (
        client.chat.completions.create(model="hello", messages=HELLO, stop="END")
        .choices[0]
        .finish_reason
        == "stop"
    )
    assert sent(upstream)["options"] == {"stop": ["END"]}


def test_chat__n(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(n=2)"""
    answer = client.chat.completions.create(model="hello", messages=HELLO, n=2)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [
        (0, "Hello there"),
        (1, "Hello there"),
    ]
    assert len(forwarded(upstream)) == 2


def test_chat__n__as_a_stream(plain: openai.OpenAI, upstream: FaultUpstream) -> None:
    """client.chat.completions.stream(n=2)"""
    with plain.chat.completions.stream(model="hello", messages=HELLO, n=2) as stream:
        choices = stream.get_final_completion().choices
    assert [(choice.index, choice.message.content) for choice in choices] == [
        (0, "Hello there"),
        (1, "Hello there"),
    ]


def test_chat__logprobs(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(logprobs=True)"""
    recorded = replay(upstream, "chat-logprobs-single")
    answer = client.chat.completions.create(
        model="tiny-test", messages=HELLO, logprobs=True, top_logprobs=2
    )
    tokens = [entry.token for entry in answer.choices[0].logprobs.content]
    assert tokens == [entry["token"] for entry in recorded["logprobs"]]


def test_chat__usage(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(stream=True, stream_options={"include_usage": True})"""
    recorded = replay(upstream, "chat-hello-stream")
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options=options
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == recorded["eval_count"]


@each_error(openai)
def test_chat__error_before(status: int, kind: type[openai.APIStatusError], client: Any) -> None:
    """client.chat.completions.create(...)

    The class of the exception follows the status.
    """
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=f"status-{status}", messages=HELLO, stream=True)
    assert caught.value.status_code == status
    assert caught.value.body["message"] == "what Ollama said"
    assert caught.value.request_id


def test_chat__error_before__missing_model(client: Any, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(...)"""
    replay(upstream, "chat-model-unknown")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert caught.value.code == "model_not_found"


def test_chat__error_before__bad_field(client: Any) -> None:
    """client.chat.completions.create(temperature="hot")"""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=HELLO, temperature="hot")
    assert caught.value.param == "temperature"


def test_chat__error_in_the_middle(client: Any) -> None:
    """client.chat.completions.create(stream=True)

    G02: raised with its text.
    """
    with pytest.raises(openai.APIError, match="boom"):
        list(client.chat.completions.create(model="boom", messages=HELLO, stream=True))


@pytest.mark.parametrize("model", ["ends-early", "cut"])
def test_chat__truncated(model: str, client: Any) -> None:
    """client.chat.completions.create(stream=True)

    G04: an upstream that stops in the middle is never taken for success.
    """
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(client.chat.completions.create(model=model, messages=HELLO, stream=True))


@pytest.mark.parametrize(("status", "arrivals"), [(400, 1), (404, 1), (429, 2), (500, 2)])
def test_chat__retries(
    status: int, arrivals: int, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """OpenAI(max_retries=1)

    The gateway itself repeats nothing: what arrives is one request and the client's one retry.
    """
    with pytest.raises(openai.APIStatusError):
        open_client(gateway, max_retries=1).chat.completions.create(
            model=f"status-{status}", messages=HELLO
        )
    assert len(forwarded(upstream)) == arrivals


def test_chat__retries__until_it_works(
    open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """OpenAI(max_retries=2)"""
    answer = open_client(gateway, max_retries=2).chat.completions.create(
        model="busy-twice", messages=HELLO
    )
    assert answer.choices[0].message.content == "Hello there"
    assert len(forwarded(upstream)) == 3


def test_chat__retries__of_an_upstream_that_is_down(
    open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """OpenAI(max_retries=1)"""
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
    wait_until(
        lambda: sorted(statuses()) == [200, 503, 503], 5, lambda: f"the log has {statuses()}"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_chat__timeout(
    stream: bool, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """OpenAI(timeout=...)

    A client that loses its patience frees the upstream.
    """
    client = open_client(gateway, timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="silent", messages=HELLO, stream=stream)
    check_freed(client, upstream)


def test_chat__leaving(plain: openai.OpenAI, upstream: FaultUpstream) -> None:
    """client.chat.completions.create(stream=True).close()"""
    with plain.chat.completions.create(model="hangs", messages=HELLO, stream=True) as stream:
        next(iter(stream))
    upstream.wait_peer_closed(forwarded(upstream)[-1].connection)


def test_chat__ignored_fields(plain: openai.OpenAI) -> None:
    """client.chat.completions.with_raw_response.create(store=True)"""
    raw = plain.chat.completions.with_raw_response.create(
        model="m", messages=HELLO, verbosity="low", store=True
    )
    assert set(raw.headers["X-Ollama-Proxy-Ignored"].split(", ")) == {"verbosity", "store"}


def test_chat__demo(demo: Any) -> None:
    """client.chat.completions.create(model="demo")"""
    [model] = [model.id for model in demo.models.list()]
    single = demo.chat.completions.create(model=model, messages=HELLO).choices[0].message.content
    assert text_of(demo.chat.completions.create(model=model, messages=HELLO, stream=True)) == single
    assert "demo" in single.lower()


def test_chat__demo__with_tools_and_a_schema(demo: Any) -> None:
    """client.chat.completions.parse(model="demo")"""
    answer = demo.chat.completions.create(model="demo", messages=ASKED, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    parsed = (
        demo.chat.completions.parse(model="demo", messages=HELLO, response_format=City)
        .choices[0]
        .message.parsed
    )
    assert isinstance(parsed, City)


def test_completions__single(client: Any, upstream: FaultUpstream) -> None:
    """client.completions.create(...)"""
    recorded = replay(upstream, "generate-hello-single")
    answer = client.completions.create(model="tiny-test", prompt="Hello!", max_tokens=20)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
        recorded["response"],
        "stop",
    )
    assert answer.usage.completion_tokens == recorded["eval_count"]


def test_completions__streaming(client: Any, upstream: FaultUpstream) -> None:
    """client.completions.create(stream=True)"""
    replay(upstream, "generate-hello-stream")
    chunks = list(
        client.completions.create(model="tiny-test", prompt="Hello!", max_tokens=20, stream=True)
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello! How can I help you today?"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_completions__unicode(client: Any) -> None:
    """client.completions.create(stream=True)"""
    chunks = list(client.completions.create(model="unicode", prompt="Hello!", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == UNICODE


def test_completions__suffix(client: Any, upstream: FaultUpstream) -> None:
    """client.completions.create(suffix=...)"""
    assert client.completions.create(model="hello", prompt="def f(", suffix="return 1").choices
    assert (sent(upstream)["prompt"], sent(upstream)["suffix"]) == ("def f(", "return 1")


def test_completions__length(client: Any, upstream: FaultUpstream) -> None:
    """client.completions.create(max_tokens=...)"""
    answer = client.completions.create(model="length", prompt="Hello!", max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert sent(upstream)["options"] == {"num_predict": 3}


@pytest.mark.parametrize(
    ("status", "kind"), [(404, openai.NotFoundError), (500, openai.InternalServerError)]
)
def test_completions__error_before(
    status: int, kind: type[openai.APIStatusError], client: Any
) -> None:
    """client.completions.create(...)"""
    with pytest.raises(kind) as caught:
        client.completions.create(model=f"status-{status}", prompt="Hello!")
    assert caught.value.body["message"] == "what Ollama said"


def test_completions__error_in_the_middle(client: Any) -> None:
    """client.completions.create(stream=True)"""
    with pytest.raises(openai.APIError, match="boom"):
        list(client.completions.create(model="boom", prompt="Hello!", stream=True))


@pytest.mark.parametrize("model", ["ends-early", "cut"])
def test_completions__truncated(model: str, client: Any) -> None:
    """client.completions.create(stream=True)"""
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(client.completions.create(model=model, prompt="Hello!", stream=True))


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["default", "float"])
def test_embeddings__many(options: dict[str, str], client: Any, upstream: FaultUpstream) -> None:
    """client.embeddings.create(input=[...])

    G28: the client asks for base64 unless told otherwise.
    """
    recorded = replay(upstream, "embed-many")
    answer = client.embeddings.create(
        model="tiny-test", input=["a"] * len(recorded["embeddings"]), **options
    )
    assert [one.index for one in answer.data] == list(range(len(recorded["embeddings"])))
    for one, expected in zip(answer.data, recorded["embeddings"], strict=True):
        assert one.embedding == pytest.approx(expected, rel=1e-6)
    assert answer.usage.prompt_tokens == recorded["prompt_eval_count"]


def test_embeddings__dimensions(client: Any, upstream: FaultUpstream) -> None:
    """client.embeddings.create(dimensions=8)"""
    assert client.embeddings.create(model="tiny-test", input="a", dimensions=8).data
    assert sent(upstream)["dimensions"] == 8


def test_embeddings__error_before(client: Any, upstream: FaultUpstream) -> None:
    """client.embeddings.create(...)"""
    upstream.script(
        "/api/embed", [Json({"error": 'model "nope" not found, try pulling it first'}, 404)]
    )
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.embeddings.create(model="nope", input="a")


def test_embeddings__demo(demo: Any) -> None:
    """client.embeddings.create(model="demo")"""
    first, second = demo.embeddings.create(model="demo", input=["a", "b"]).data
    assert len(first.embedding) == len(second.embedding) > 0
    assert first.embedding != second.embedding


SOUND: Any = ("hello.wav", b"RIFF\x00WAVE", "audio/wav")


def test_transcriptions__single(client: Any, upstream: FaultUpstream) -> None:
    """client.audio.transcriptions.create(file=...)"""
    upstream.script(TRANSCRIPTIONS, [Json({"text": "Hello."})])
    heard = client.audio.transcriptions.create(
        model="gemma",
        file=SOUND,
        language="en",
        timestamp_granularities=["word"],
        chunking_strategy="auto",
    )
    assert heard.text == "Hello."
    [seen] = [seen for seen in forwarded(upstream) if seen.path == TRANSCRIPTIONS]
    parts = {part.name: part for part in read_form(seen.header("content-type") or "", seen.body)}
    assert (parts["file"].data, parts["file"].filename, parts["model"].text) == (
        SOUND[1],
        SOUND[0],
        "gemma",
    )
    assert {"language", "timestamp_granularities[]", "chunking_strategy"} < parts.keys()


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_transcriptions__text(form: Any, demo: Any) -> None:
    """client.audio.transcriptions.create(response_format="srt")"""
    text = demo.audio.transcriptions.create(model="demo", file=SOUND).text
    assert text in demo.audio.transcriptions.create(model="demo", file=SOUND, response_format=form)


def test_transcriptions__verbose(demo: Any) -> None:
    """client.audio.transcriptions.create(response_format="verbose_json")"""
    heard = demo.audio.transcriptions.create(
        model="demo", file=SOUND, response_format="verbose_json"
    )
    assert [segment.text for segment in heard.segments] == [heard.text]


def test_transcriptions__streaming(demo: Any) -> None:
    """client.audio.transcriptions.create(stream=True)"""
    events = list(demo.audio.transcriptions.create(model="demo", file=SOUND, stream=True))
    said = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", said)


def test_transcriptions__error_before(client: Any, upstream: FaultUpstream) -> None:
    """client.audio.transcriptions.create(...) raises by status"""
    upstream.script(
        TRANSCRIPTIONS, [Json({"error": {"message": "gemma does not support audio"}}, 400)]
    )
    with pytest.raises(openai.BadRequestError, match="does not support audio"):
        client.audio.transcriptions.create(model="gemma", file=SOUND)


def test_models__list(client: Any, upstream: FaultUpstream) -> None:
    """client.models.list()"""
    names = ["tiny-test:latest", "ns/m:v1"]
    upstream.script("/api/tags", [Json({"models": [{"name": name} for name in names]})])
    listed = list(client.models.list())
    assert [(model.id, model.object, model.owned_by) for model in listed] == [
        (n, "model", "ollama") for n in names
    ]


@pytest.mark.parametrize("name", ["tiny-test", "ns/m:v1", "host.example/ns/m:v1"])
def test_models__retrieve(name: str, client: Any, upstream: FaultUpstream) -> None:
    """client.models.retrieve(...)

    G13: the client escapes the slash.
    """
    have_model(upstream, name)
    assert client.models.retrieve(name).id == name


def test_models__wrong_key(open_client: Open, gateway: Gateway) -> None:
    """OpenAI(api_key="wrong")"""
    with pytest.raises(openai.AuthenticationError) as caught:
        open_client(gateway, api_key="wrong").models.list()
    assert caught.value.code == "invalid_api_key"


def test_models__no_key_needed() -> None:
    """OpenAI(api_key="not-needed")

    Without authentication any key does: users type some word, because the
    client refuses an empty one.
    """
    settings = {
        "auth": {"enabled": False},
        "server": {"host": "127.0.0.1"},
        "service": {"base_url": "demo:"},
    }
    with Gateway(settings) as open_gateway:
        with openai.OpenAI(base_url=f"{open_gateway.url}/v1", api_key="not-needed") as client:
            assert [model.id for model in client.models.list()]
