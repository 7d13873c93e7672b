"""The official Python client of Ollama, synchronous and asynchronous, changes its host and a key, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.golden.blocking import Blocking
from tests.golden.face import TOKEN, forwarded, shared_gateway
from tests.rig import NDJSON
from tests.rig.fault_upstream import Chunk, Head, Json, Lines, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.replay_upstream import ReplayUpstream, recording

HELLO = [{"role": "user", "content": "Hello!"}]
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ReplayUpstream]:
    with ReplayUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ReplayUpstream) -> Iterator[Gateway]:
    with shared_gateway(upstream) as running:
        yield running


@pytest.fixture(autouse=True)
def clean(upstream: ReplayUpstream) -> None:
    upstream.clear()


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


def recorded_lines(name: str) -> list[Any]:
    return [json.loads(line) for line in recording(name).response.splitlines()]


def answer_with(upstream: ReplayUpstream, name: str) -> Any:
    """The recorded answer, read."""
    return json.loads(upstream.answer_with(name).response)


def test_chat(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "chat-hello-single")
    answer = client.chat("tiny-test", HELLO)
    assert answer.message.content == expected["message"]["content"]
    assert (answer.done_reason, answer.eval_count) == (expected["done_reason"], expected["eval_count"])
    assert forwarded(upstream)[-1].json()["messages"] == HELLO


@pytest.mark.parametrize("name", ["chat-hello-stream", "chat-emoji-stream", "chat-poem-stream", "chat-think-stream"])
@pytest.mark.parametrize("cut", ["recorded", 1])
def test_chat_stream(name: str, cut: Any, client: Any, upstream: ReplayUpstream) -> None:
    upstream.cut = cut
    try:
        upstream.answer_with(name)
        parts = list(client.chat("tiny-test", HELLO, stream=True))
    finally:
        upstream.cut = "recorded"
    lines = recorded_lines(name)
    assert [part.message.content for part in parts] == [line["message"]["content"] for line in lines]
    assert [part.message.thinking for part in parts] == [line["message"].get("thinking") for line in lines]
    assert parts[-1].done


def test_chat_with_thinking(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "chat-think-single")
    assert client.chat("tiny-test", HELLO, think="high").message.thinking == expected["message"]["thinking"]
    assert forwarded(upstream)[-1].json()["think"] == "high"


def get_weather(city: str) -> str:
    """Current weather of a city.

    Args:
      city: name of the city
    """
    return f"18 degrees in {city}"


def test_chat_with_tools_and_their_result(client: Any, upstream: ReplayUpstream) -> None:
    upstream.answer_with("chat-tools-parallel-single", times=1)
    first = client.chat("tiny-test", HELLO, tools=[get_weather])
    calls = first.message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Tokyo"}),
    ]
    results = [{"role": "tool", "content": "18", "tool_name": call.function.name} for call in calls]
    upstream.answer_with("chat-hello-single")
    assert client.chat("tiny-test", [*HELLO, first.message, *results], tools=[get_weather]).message.content
    sent = forwarded(upstream)[-1].json()
    assert sent["tools"][0]["function"]["name"] == "get_weather"
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool", "tool"]


def test_chat_with_schema_image_and_options(client: Any, upstream: ReplayUpstream) -> None:
    upstream.answer_with("chat-hello-single")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    message = {"role": "user", "content": "Look", "images": [b"\x89PNG"]}
    client.chat("tiny-test", [message], format=schema, options={"num_ctx": 512}, keep_alive="5m")
    sent = forwarded(upstream)[-1].json()
    assert (sent["format"], sent["options"], sent["keep_alive"]) == (schema, {"num_ctx": 512}, "5m")
    assert sent["messages"][0]["images"] == ["iVBORw=="]


def test_generate(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "generate-hello-single")
    answer = client.generate("tiny-test", "Hello!")
    assert (answer.response, list(answer.context)) == (expected["response"], expected["context"])


def test_generate_stream(client: Any, upstream: ReplayUpstream) -> None:
    upstream.answer_with("generate-think-stream")
    parts = list(client.generate("tiny-test", "Think", stream=True))
    lines = recorded_lines("generate-think-stream")
    assert [(part.response, part.thinking) for part in parts] == [(x["response"], x.get("thinking")) for x in lines]


def test_embed(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "embed-many")
    answer = client.embed("tiny-test", ["a", "b"], dimensions=8)
    assert [list(vector) for vector in answer.embeddings] == expected["embeddings"]
    assert forwarded(upstream)[-1].json()["dimensions"] == 8


def test_embeddings(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "embed-legacy-one")
    assert list(client.embeddings("tiny-test", "a").embedding) == expected["embedding"]


def test_list(client: Any) -> None:
    expected = json.loads(recording("tags").response)["models"]
    assert [model.model for model in client.list().models] == [model["model"] for model in expected]


def test_ps(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "ps-loaded")["models"]
    assert [model.model for model in client.ps().models] == [model["model"] for model in expected]
    upstream.answer_with("ps-idle")
    assert list(client.ps().models) == []


def test_show(client: Any, upstream: ReplayUpstream) -> None:
    expected = answer_with(upstream, "show")
    answer = client.show("tiny-test")
    assert (answer.template, answer.capabilities) == (expected["template"], expected["capabilities"])
    assert answer.modelinfo == expected["model_info"]


PULLING = [
    {"status": "pulling manifest"},
    {"status": "pulling 5b5b5b5b5b5b", "digest": "sha256:" + "5b" * 32, "total": 100},
    {"status": "pulling 5b5b5b5b5b5b", "digest": "sha256:" + "5b" * 32, "total": 100, "completed": 60},
    {"status": "success"},
]


@pytest.mark.parametrize("method", ["pull", "push"])
def test_pull_and_push_show_their_progress(method: str, client: Any, upstream: ReplayUpstream) -> None:
    upstream.script(f"/api/{method}", [Lines(PULLING)])
    parts = list(getattr(client, method)("tiny-test", stream=True, insecure=True))
    shown = [(part.status, part.total, part.completed) for part in parts]
    assert shown == [(line["status"], line.get("total"), line.get("completed")) for line in PULLING]
    assert forwarded(upstream)[-1].json()["insecure"] is True


def test_pull_at_once(client: Any, upstream: ReplayUpstream) -> None:
    upstream.script("/api/pull", [Json({"status": "success"})])
    assert client.pull("tiny-test").status == "success"


def test_failed_pull_raises_in_the_middle(client: Any, upstream: ReplayUpstream) -> None:
    upstream.answer_with("pull-unreachable")
    with pytest.raises(ollama.ResponseError, match="connection refused"):
        list(client.pull("localhost:9/library/nope", stream=True))


def test_create(client: Any, upstream: ReplayUpstream) -> None:
    upstream.answer_with("create-stream")
    parts = list(client.create("mine", from_="tiny-test", system="Be brief.", stream=True))
    assert [part.status for part in parts] == [line["status"] for line in recorded_lines("create-stream")]
    assert forwarded(upstream)[-1].json()["system"] == "Be brief."


def test_copy_and_delete(client: Any, upstream: ReplayUpstream) -> None:
    upstream.answer_with("copy")
    upstream.answer_with("delete")
    assert client.copy("tiny-test", "copied").status == "success"
    assert client.delete("copied").status == "success"
    assert [seen.json() for seen in forwarded(upstream)] == [
        {"source": "tiny-test", "destination": "copied"},
        {"model": "copied"},
    ]


def test_blob_is_uploaded_whole(client: Any, upstream: ReplayUpstream, tmp_path: Path) -> None:
    content = b"GGUF" + bytes(range(256)) * 2000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    (tmp_path / "model.gguf").write_bytes(content)
    upstream.script(f"/api/blobs/{digest}", [Head(201, [("Content-Length", "0")])])
    assert client.create_blob(tmp_path / "model.gguf") == digest
    assert forwarded(upstream)[-1].body == content


@pytest.mark.parametrize(
    ("name", "status"), [("chat-model-unknown", 404), ("chat-think-unsupported", 400), ("chat-stop-string", 500)]
)
@pytest.mark.parametrize("stream", [True, False])
def test_refusals_have_their_status_and_text(
    name: str, status: int, stream: bool, client: Any, upstream: ReplayUpstream
) -> None:
    expected = answer_with(upstream, name)["error"]
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.chat("nope", HELLO, stream=stream))
    assert (caught.value.status_code, caught.value.error) == (status, expected)


def test_error_in_a_stream_is_raised_after_what_came_before(client: Any, upstream: ReplayUpstream) -> None:
    line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n'
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(line), Chunk(b'{"error":"boom"}\n')])
    with pytest.raises(ollama.ResponseError, match="boom"):
        list(client.chat("m", HELLO, stream=True))


def test_stream_that_stops_is_an_error(client: Any, upstream: ReplayUpstream) -> None:
    """G04: the client itself would take the silent end for success."""
    line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n'
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(line)])
    with pytest.raises(ollama.ResponseError):
        list(client.chat("m", HELLO, stream=True))


@pytest.mark.parametrize("headers", [{}, bearer("wrong")], ids=["none", "wrong"])
def test_token_is_needed(headers: dict[str, str], open_client: Open, gateway: Gateway) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        open_client(gateway.url, headers=headers).list()
    assert caught.value.status_code == 401
    assert "token" in caught.value.error


def test_token_in_the_host(open_client: Open, gateway: Gateway) -> None:
    """G29: for clients that can only set a base URL."""
    assert open_client(f"{gateway.url}/k/{TOKEN}", headers={}).list().models


def test_token_in_the_environment(open_client: Open, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", TOKEN)
    assert open_client(gateway.url, headers={}).list().models


def test_ollama_that_is_down_is_a_503_with_the_known_text(client: Any, upstream: ReplayUpstream) -> None:
    upstream.refuse()
    try:
        with pytest.raises(ollama.ResponseError, match="Failed to connect to Ollama service") as caught:
            client.chat("m", HELLO)
    finally:
        upstream.restart()
    assert caught.value.status_code == 503


def test_leaving_a_stream_ends_it_at_the_upstream(gateway: Gateway, upstream: ReplayUpstream) -> None:
    line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n'
    upstream.script("/api/chat", [Head(200, NDJSON), Chunk(line), WaitForPeerClose()])
    with ollama.Client(gateway.url, headers=bearer(TOKEN)) as leaving:
        parts = leaving.chat("m", HELLO, stream=True)
        assert next(iter(parts)).message.content == "Hel"
        parts.close()
    upstream.wait_peer_closed(forwarded(upstream)[-1].connection, seconds=3)


def test_demo_chats(demo: Any) -> None:
    [model] = [model.model for model in demo.list().models]
    single = demo.chat(model, HELLO)
    parts = list(demo.chat(model, HELLO, stream=True))
    assert "".join(part.message.content for part in parts) == single.message.content != ""
    assert (parts[-1].done, parts[-1].eval_count) == (True, single.eval_count)
    assert "demo" in single.message.content.lower()


def test_demo_thinks_when_asked(demo: Any) -> None:
    assert demo.chat("demo", HELLO, think=True).message.thinking
    assert not demo.chat("demo", HELLO, think=False).message.thinking


def test_demo_calls_tools(demo: Any) -> None:
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = demo.chat("demo", question, tools=[get_weather])
    [call] = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(call.function.arguments["city"], str)
    result = {"role": "tool", "content": "18 degrees", "tool_name": "get_weather"}
    assert demo.chat("demo", [*question, first.message, result], tools=[get_weather]).message.content


def test_demo_keeps_to_a_schema(demo: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
        "required": ["n", "s"],
    }
    document = json.loads(demo.chat("demo", HELLO, format=schema).message.content)
    assert (type(document["n"]), type(document["s"])) == (int, str)


def test_demo_generates_and_embeds(demo: Any) -> None:
    assert demo.generate("demo", "Hello!").response
    assert "".join(part.response for part in demo.generate("demo", "Hello!", stream=True))
    first, second = demo.embed("demo", ["a", "b"]).embeddings
    assert sum(value * value for value in first) == pytest.approx(1, rel=1e-4)
    assert list(first) != list(second)
    assert len(demo.embeddings("demo", "a").embedding) == len(first)


def test_demo_shows_itself(demo: Any) -> None:
    assert "completion" in demo.show("demo").capabilities
    assert demo.ps().models is not None
    statuses = [part.status for part in demo.pull("demo", stream=True)]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")


def test_demo_refuses_other_models(demo: Any) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        demo.chat("llama3", HELLO)
    assert caught.value.status_code == 404
