"""A kind of upstream in one file, registered in one line: the gateway serves it like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from ollama_proxy.errors import ConfigError, UpstreamConnect, UpstreamRefused
from ollama_proxy.hub import ChatRequest, Content, Done, Event, Model
from ollama_proxy.server.app import create_app
from ollama_proxy.settings import PRESETS, Preset, UpstreamSettings, load_settings
from ollama_proxy.upstreams import TransportFactory, register_kind
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.registry import BUILDERS
from tests.rig.deadline import wait_until

CONFIG = "server: {host: 127.0.0.1}\nauth: {enabled: false}\nupstreams: [{name: echo, kind: toy}]\n"


class EchoEvents:
    """The words of a text, one batch for each."""

    def __init__(self, text: str) -> None:
        self._words = text.split(" ")

    def __iter__(self) -> Iterator[Sequence[Event]]:
        for number, word in enumerate(self._words):
            yield [Content(f" {word}" if number else word)]
        yield [Done("stop", prompt_eval_count=len(self._words), eval_count=len(self._words))]

    def close(self) -> None:
        """Nothing to close."""


class ToyUpstream(Upstream):
    """Repeats the last message; the model `busy` refuses every chat, and a server called
    `gone` can't be reached."""

    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> EchoEvents:
        """See Upstream.chat."""
        if request.model == "busy":
            raise UpstreamRefused(400, "the toy is broken")
        return EchoEvents(request.messages[-1].content)

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        return [Model(name, 0, self.name) for name in ("parrot", "busy")]

    def version(self, call: Call) -> str:
        """See Upstream.version."""
        if self.name == "gone":
            raise UpstreamConnect
        return "1.0"


def build_toy(
    declared: UpstreamSettings, key: str | None, open_transport: TransportFactory
) -> ToyUpstream:
    return ToyUpstream(declared.name)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind, for one test."""
    for table in (PRESETS, BUILDERS):
        monkeypatch.setitem(table, "toy", None)
    register_kind("toy", build_toy, Preset("toy:", protocol="toy"))


def client_of(config: str, directory: Path) -> FlaskClient:
    path = directory / "config.yaml"
    path.write_text(config, encoding="utf-8")
    return create_app(load_settings(path, environ={})).test_client()


@pytest.fixture
def client(toy: None, tmp_path: Path) -> FlaskClient:
    return client_of(CONFIG, tmp_path)


def chat(model: str = "parrot", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "one two three"}], **more}


def test_a_chat_has_one_answer(client: FlaskClient) -> None:
    answer = client.post("/api/chat", json=chat(stream=False)).json
    assert answer and answer["message"] == {"role": "assistant", "content": "one two three"}
    assert (answer["done_reason"], answer["prompt_eval_count"], answer["eval_count"]) == (
        "stop",
        3,
        3,
    )


def test_a_chat_is_streamed(client: FlaskClient) -> None:
    lines = [json.loads(line) for line in client.post("/api/chat", json=chat()).data.splitlines()]
    assert [line["message"]["content"] for line in lines] == ["one", " two", " three", ""]
    assert [line["done"] for line in lines] == [False, False, False, True]


def test_other_dialects_and_prompts_reach_it(client: FlaskClient) -> None:
    answer = client.post("/v1/chat/completions", json=chat()).json
    assert answer and answer["choices"][0]["message"]["content"] == "one two three"
    answer = client.post(
        "/api/generate", json={"model": "parrot", "prompt": "once upon", "stream": False}
    ).json
    assert answer and answer["response"] == "once upon"


def test_its_models_are_listed(client: FlaskClient) -> None:
    tags, models = client.get("/api/tags").json, client.get("/v1/models").json
    assert tags and [row["name"] for row in tags["models"]] == ["parrot:latest", "busy:latest"]
    assert models and [(row["id"], row["owned_by"]) for row in models["data"]] == [
        ("parrot", "echo"),
        ("busy", "echo"),
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_its_errors_reach_the_client(client: FlaskClient, stream: bool) -> None:
    refused = client.post("/api/chat", json=chat("busy", stream=stream))
    assert (refused.status_code, refused.json) == (400, {"error": "the toy is broken"})


def test_what_it_does_not_implement_is_refused(client: FlaskClient) -> None:
    refused = client.post("/api/embed", json={"model": "parrot", "input": "x"})
    assert (refused.status_code, refused.json) == (
        400,
        {"error": "parrot does not support embeddings"},
    )


def test_its_health_is_checked(client: FlaskClient, toy: None, tmp_path: Path) -> None:
    wait_until(lambda: client.get("/readyz").status_code == 200, 10, "it is not checked")
    gone = client_of(CONFIG.replace("echo", "gone"), tmp_path).get("/readyz")
    assert gone.status_code == 503


def test_a_kind_that_is_not_registered_is_no_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind.*must be one of"):
        client_of(CONFIG, tmp_path)
