"""The official Python client of Ollama, synchronous and asynchronous: another host and a
key, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from tests.golden.blocking import Blocking
from tests.golden.face import TOKEN, forwarded
from tests.rig.fault_upstream import FaultUpstream, Head, Json, Lines
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.replay_upstream import Cut
from tests.sdk.answers import recorded_lines, replay, sent
from tests.sdk.clients import check_freed
from tests.sdk.samples import HELLO, PNG, QUESTION, City

ASKED = [{"role": "user", "content": QUESTION}]
Open = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """``open_client(url)`` gives a client of the kind under test; it is closed with the test."""
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with ExitStack() as opened:

        def run(url: str, **options: Any) -> Any:
            options.setdefault("headers", bearer(TOKEN))
            if request.param == "sync":
                return opened.enter_context(ollama.Client(url, **options))
            client = Blocking(ollama.AsyncClient(url, **options))
            opened.callback(client.shut)
            return client

        yield run


@pytest.fixture
def client(open_client: Open, gateway: Gateway) -> Any:
    return open_client(gateway.url)


@pytest.fixture
def demo(open_client: Open, demo_gateway: Gateway) -> Any:
    return open_client(demo_gateway.url)


def get_weather(city: str) -> str:
    """Current weather of a city.

    Args:
      city: name of the city
    """
    return f"18 degrees in {city}"


def test_native__single(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(...)"""
    expected = replay(upstream, "chat-hello-single")
    answer = client.chat("tiny-test", HELLO)
    assert answer.message.content == expected["message"]["content"]
    assert (answer.done_reason, answer.eval_count) == (
        expected["done_reason"],
        expected["eval_count"],
    )
    assert sent(upstream)["messages"] == HELLO


@pytest.mark.parametrize("name", ["chat-hello-stream", "chat-poem-stream", "chat-think-stream"])
@pytest.mark.parametrize("cut", ["recorded", 1])
def test_native__streaming(name: str, cut: Cut, client: Any, upstream: FaultUpstream) -> None:
    """client.chat(stream=True)"""
    replay(upstream, name, cut=cut)
    parts = list(client.chat("tiny-test", HELLO, stream=True))
    lines = recorded_lines(name)
    assert [part.message.content for part in parts] == [
        line["message"]["content"] for line in lines
    ]
    assert [part.message.thinking for part in parts] == [
        line["message"].get("thinking") for line in lines
    ]
    assert parts[-1].done


def test_native__async_streaming(gateway: Gateway, upstream: FaultUpstream) -> None:
    """AsyncClient().chat(stream=True)"""

    async def run() -> str:
        async with ollama.AsyncClient(gateway.url, headers=bearer(TOKEN)) as client:
            parts = await client.chat("hello", HELLO, stream=True)
            return "".join([part.message.content or "" async for part in parts])

    assert asyncio.run(run()) == "Hello there"


@pytest.mark.parametrize("name", ["chat-chinese-stream", "chat-emoji-stream"])
def test_native__unicode(name: str, client: Any, upstream: FaultUpstream) -> None:
    """client.chat(stream=True)

    The upstream's packets end in the middle of characters. (The client would also end a line at
    U+2028, were it not that Ollama escapes it.)
    """
    replay(upstream, name, cut=1)
    said = [part.message.content for part in client.chat("tiny-test", HELLO, stream=True)]
    assert said == [line["message"]["content"] for line in recorded_lines(name)]
    assert not "".join(said).isascii()


def test_native__thinking(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(think="high")"""
    expected = replay(upstream, "chat-think-single")
    assert (
        client.chat("tiny-test", HELLO, think="high").message.thinking
        == expected["message"]["thinking"]
    )
    assert sent(upstream)["think"] == "high"


def test_native__one_tool(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(tools=[function])"""
    [call] = client.chat("calls", ASKED, tools=[get_weather]).message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "北京"})
    assert sent(upstream)["tools"][0]["function"]["parameters"]["required"] == ["city"]


def test_native__parallel_tools(client: Any) -> None:
    """client.chat(tools=[function], stream=True)"""
    parts = client.chat("calls-two", ASKED, tools=[get_weather], stream=True)
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.arguments for call in calls] == [{"city": "Paris"}, {"city": "北京"}]


def test_native__tool_round_trip(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(messages=[..., message, {"role": "tool"}])"""
    replay(upstream, "chat-tools-parallel-single", "chat-hello-single")
    first = client.chat("tiny-test", HELLO, tools=[get_weather])
    calls = first.message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Tokyo"}),
    ]
    results = [
        {
            "role": "tool",
            "content": get_weather(**call.function.arguments),
            "tool_name": call.function.name,
        }
        for call in calls
    ]
    assert client.chat(
        "tiny-test", [*HELLO, first.message, *results], tools=[get_weather]
    ).message.content
    messages = sent(upstream)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [message["content"] for message in messages[2:]] == [
        "18 degrees in Paris",
        "18 degrees in Tokyo",
    ]


def test_native__image(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(messages=[{"images": [bytes]}])"""
    client.chat("hello", [{"role": "user", "content": "Look", "images": [base64.b64decode(PNG)]}])
    assert sent(upstream)["messages"][0]["images"] == [PNG]


def test_native__json_schema(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(format=City.model_json_schema())"""
    answer = client.chat("city", HELLO, format=City.model_json_schema())
    assert City.model_validate_json(answer.message.content) == City(name="Paris", people=2)
    assert list(sent(upstream)["format"]["properties"]) == ["name", "people"]


def test_native__options(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(options={...}, keep_alive=...)"""
    client.chat("hello", HELLO, options={"num_ctx": 512}, keep_alive="5m")
    assert (sent(upstream)["options"], sent(upstream)["keep_alive"]) == ({"num_ctx": 512}, "5m")


def test_native__length(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(options={"num_predict": ...})"""
    assert client.chat("length", HELLO, options={"num_predict": 3}).done_reason == "length"
    assert sent(upstream)["options"] == {"num_predict": 3}


def test_native__stop(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(options={"stop": [...]})"""
    assert client.chat("hello", HELLO, options={"stop": ["END"]}).done_reason == "stop"
    assert sent(upstream)["options"] == {"stop": ["END"]}


def test_native__logprobs(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(logprobs=True)"""
    recorded = replay(upstream, "chat-logprobs-single")
    answer = client.chat("tiny-test", HELLO, logprobs=True, top_logprobs=2)
    assert [entry.token for entry in answer.logprobs] == [
        entry["token"] for entry in recorded["logprobs"]
    ]


def test_native__generate(client: Any, upstream: FaultUpstream) -> None:
    """client.generate(...)"""
    expected = replay(upstream, "generate-hello-single")
    answer = client.generate("tiny-test", "Hello!")
    assert (answer.response, list(answer.context)) == (expected["response"], expected["context"])


def test_native__generate__as_a_stream(client: Any, upstream: FaultUpstream) -> None:
    """client.generate(stream=True)"""
    replay(upstream, "generate-think-stream")
    parts = list(client.generate("tiny-test", "Think", stream=True))
    lines = recorded_lines("generate-think-stream")
    assert [(part.response, part.thinking) for part in parts] == [
        (x["response"], x.get("thinking")) for x in lines
    ]


PULLING = [
    {"status": "pulling manifest"},
    {"status": "pulling 5b5b5b5b5b5b", "digest": "sha256:" + "5b" * 32, "total": 100},
    {
        "status": "pulling 5b5b5b5b5b5b",
        "digest": "sha256:" + "5b" * 32,
        "total": 100,
        "completed": 60,
    },
    {"status": "success"},
]


@pytest.mark.parametrize("method", ["pull", "push"])
def test_native__pull_and_push(method: str, client: Any, upstream: FaultUpstream) -> None:
    """client.pull(stream=True), client.push(stream=True)

    They show their progress.
    """
    upstream.script(f"/api/{method}", [Lines(PULLING)])
    parts = list(getattr(client, method)("tiny-test", stream=True, insecure=True))
    shown = [(part.status, part.total, part.completed) for part in parts]
    assert shown == [(line["status"], line.get("total"), line.get("completed")) for line in PULLING]
    assert sent(upstream)["insecure"] is True


def test_native__pull_and_push__at_once(client: Any, upstream: FaultUpstream) -> None:
    """client.pull(...)"""
    upstream.script("/api/pull", [Json({"status": "success"})])
    assert client.pull("tiny-test").status == "success"


def test_native__pull_and_push__that_fail_in_the_middle(
    client: Any, upstream: FaultUpstream
) -> None:
    """client.pull(stream=True)"""
    replay(upstream, "pull-unreachable")
    with pytest.raises(ollama.ResponseError, match="connection refused"):
        list(client.pull("localhost:9/library/nope", stream=True))


def test_native__create(client: Any, upstream: FaultUpstream) -> None:
    """client.create(stream=True)"""
    replay(upstream, "create-stream")
    parts = list(client.create("mine", from_="tiny-test", system="Be brief.", stream=True))
    assert [part.status for part in parts] == [
        line["status"] for line in recorded_lines("create-stream")
    ]
    assert sent(upstream)["system"] == "Be brief."


def test_native__create__blob(client: Any, upstream: FaultUpstream, tmp_path: Path) -> None:
    """client.create_blob(...)"""
    content = b"GGUF" + bytes(range(256)) * 2000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    (tmp_path / "model.gguf").write_bytes(content)
    upstream.script(f"/api/blobs/{digest}", [Head(201, [("Content-Length", "0")])])
    assert client.create_blob(tmp_path / "model.gguf") == digest
    assert forwarded(upstream)[-1].body == content


def test_native__copy_and_delete(client: Any, upstream: FaultUpstream) -> None:
    """client.copy(...), client.delete(...)"""
    replay(upstream, "copy")
    replay(upstream, "delete")
    assert client.copy("tiny-test", "copied").status == "success"
    assert client.delete("copied").status == "success"
    assert [seen.json() for seen in forwarded(upstream)] == [
        {"source": "tiny-test", "destination": "copied"},
        {"model": "copied"},
    ]


@pytest.mark.parametrize(
    ("name", "status"),
    [("chat-model-unknown", 404), ("chat-think-unsupported", 400), ("chat-stop-string", 500)],
)
@pytest.mark.parametrize("stream", [True, False])
def test_native__error_before(
    name: str, status: int, stream: bool, client: Any, upstream: FaultUpstream
) -> None:
    """client.chat(...)

    Refusals have the status and text of Ollama.
    """
    expected = replay(upstream, name)["error"]
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.chat("nope", HELLO, stream=stream))
    assert (caught.value.status_code, caught.value.error) == (status, expected)


def test_native__error_before__upstream_down(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(...)"""
    upstream.refuse()
    try:
        with pytest.raises(
            ollama.ResponseError, match="Failed to connect to Ollama service"
        ) as caught:
            client.chat("m", HELLO)
    finally:
        upstream.restart()
    assert caught.value.status_code == 503


def test_native__error_in_the_middle(client: Any) -> None:
    """client.chat(stream=True)"""
    with pytest.raises(ollama.ResponseError, match="boom"):
        list(client.chat("boom", HELLO, stream=True))


def test_native__truncated(client: Any) -> None:
    """client.chat(stream=True)

    G04: the client itself would take the silent end for success.
    """
    with pytest.raises(ollama.ResponseError):
        list(client.chat("ends-early", HELLO, stream=True))


def test_native__retries(client: Any, upstream: FaultUpstream) -> None:
    """client.chat(...)

    This client repeats nothing, and neither does the gateway.
    """
    with pytest.raises(ollama.ResponseError):
        client.chat("status-503", HELLO)
    assert len(forwarded(upstream)) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_native__timeout(
    stream: bool, open_client: Open, gateway: Gateway, upstream: FaultUpstream
) -> None:
    """Client(timeout=...)

    A client that loses its patience frees the upstream.
    """
    client = open_client(gateway.url, timeout=0.5)
    with pytest.raises(httpx.ReadTimeout):
        list(client.chat("silent", HELLO, stream=stream))
    check_freed(client, upstream)


def test_native__leaving(gateway: Gateway, upstream: FaultUpstream) -> None:
    """client.chat(stream=True).close()"""
    with ollama.Client(gateway.url, headers=bearer(TOKEN)) as leaving:
        parts: Any = leaving.chat("hangs", HELLO, stream=True)
        assert next(parts).message.content == "Hel"
        parts.close()
    upstream.wait_peer_closed(forwarded(upstream)[-1].connection)


@pytest.mark.parametrize("headers", [{}, bearer("wrong")], ids=["none", "wrong"])
def test_native__wrong_key(headers: dict[str, str], open_client: Open, gateway: Gateway) -> None:
    """Client(headers=...)"""
    with pytest.raises(ollama.ResponseError) as caught:
        open_client(gateway.url, headers=headers).list()
    assert caught.value.status_code == 401
    assert "token" in caught.value.error


def test_native__key_in_the_host(open_client: Open, gateway: Gateway) -> None:
    """Client("http://gateway/k/<token>")

    G29: for clients that can only set a base URL.
    """
    assert open_client(f"{gateway.url}/k/{TOKEN}", headers={}).list().models


def test_native__key_in_the_environment(
    open_client: Open, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client() with OLLAMA_API_KEY"""
    monkeypatch.setenv("OLLAMA_API_KEY", TOKEN)
    assert open_client(gateway.url, headers={}).list().models


def test_native__demo(demo: Any) -> None:
    """client.chat("demo", ...)"""
    [model] = [model.model for model in demo.list().models]
    single = demo.chat(model, HELLO)
    parts = list(demo.chat(model, HELLO, stream=True))
    assert "".join(part.message.content for part in parts) == single.message.content != ""
    assert (parts[-1].done, parts[-1].eval_count) == (True, single.eval_count)
    assert "demo" in single.message.content.lower()


def test_native__demo__thinks_when_asked(demo: Any) -> None:
    """client.chat("demo", think=True)"""
    assert demo.chat("demo", HELLO, think=True).message.thinking
    assert not demo.chat("demo", HELLO, think=False).message.thinking


def test_native__demo__calls_tools(demo: Any) -> None:
    """client.chat("demo", tools=[function])"""
    first = demo.chat("demo", ASKED, tools=[get_weather])
    [call] = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(call.function.arguments["city"], str)
    result = {"role": "tool", "content": "18 degrees", "tool_name": "get_weather"}
    assert demo.chat("demo", [*ASKED, first.message, result], tools=[get_weather]).message.content


def test_native__demo__keeps_to_a_schema(demo: Any) -> None:
    """client.chat("demo", format={...})"""
    document = json.loads(demo.chat("demo", HELLO, format=City.model_json_schema()).message.content)
    assert (type(document["people"]), type(document["name"])) == (int, str)


def test_native__demo__generates(demo: Any) -> None:
    """client.generate("demo", ...)"""
    assert demo.generate("demo", "Hello!").response
    assert "".join(part.response for part in demo.generate("demo", "Hello!", stream=True))


def test_native__demo__pulls(demo: Any) -> None:
    """client.pull("demo", stream=True)"""
    statuses = [part.status for part in demo.pull("demo", stream=True)]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")


def test_native__demo__refuses_other_models(demo: Any) -> None:
    """client.chat("llama3", ...)"""
    with pytest.raises(ollama.ResponseError) as caught:
        demo.chat("llama3", HELLO)
    assert caught.value.status_code == 404


def test_embeddings__many(client: Any, upstream: FaultUpstream) -> None:
    """client.embed(input=[...])"""
    expected = replay(upstream, "embed-many")
    answer = client.embed("tiny-test", ["a", "b"])
    assert [list(vector) for vector in answer.embeddings] == expected["embeddings"]


def test_embeddings__one(client: Any, upstream: FaultUpstream) -> None:
    """client.embeddings(...)"""
    expected = replay(upstream, "embed-legacy-one")
    assert list(client.embeddings("tiny-test", "a").embedding) == expected["embedding"]


def test_embeddings__dimensions(client: Any, upstream: FaultUpstream) -> None:
    """client.embed(dimensions=8)"""
    client.embed("tiny-test", "a", dimensions=8)
    assert sent(upstream)["dimensions"] == 8


def test_embeddings__error_before(client: Any, upstream: FaultUpstream) -> None:
    """client.embed(...)"""
    upstream.script(
        "/api/embed", [Json({"error": 'model "nope" not found, try pulling it first'}, 404)]
    )
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        client.embed("nope", "a")
    assert caught.value.status_code == 404


def test_embeddings__demo(demo: Any) -> None:
    """client.embed("demo", [...])"""
    first, second = demo.embed("demo", ["a", "b"]).embeddings
    assert sum(value * value for value in first) == pytest.approx(1, rel=1e-4)
    assert list(first) != list(second)
    assert len(demo.embeddings("demo", "a").embedding) == len(first)


def test_models__list(client: Any, upstream: FaultUpstream) -> None:
    """client.list()"""
    expected = replay(upstream, "tags")["models"]
    assert [model.model for model in client.list().models] == [model["model"] for model in expected]


def test_models__running(client: Any, upstream: FaultUpstream) -> None:
    """client.ps()"""
    expected = replay(upstream, "ps-loaded")["models"]
    assert [model.model for model in client.ps().models] == [model["model"] for model in expected]
    replay(upstream, "ps-idle")
    assert list(client.ps().models) == []


def test_models__retrieve(client: Any, upstream: FaultUpstream) -> None:
    """client.show(...)"""
    expected = replay(upstream, "show")
    answer = client.show("tiny-test")
    assert (answer.template, answer.capabilities) == (
        expected["template"],
        expected["capabilities"],
    )
    assert answer.modelinfo == expected["model_info"]


def test_models__demo(demo: Any) -> None:
    """client.show("demo"), client.ps()"""
    assert "completion" in demo.show("demo").capabilities
    assert demo.ps().models is not None
