"""Ollama's API on the models of a provider that does not speak it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.boxes import Box
from tests.rig.fault_upstream import Json, Whole
from tests.rig.in_process import InProcess, in_process
from tests.rig.provider import CHAT, EMBEDDINGS, HELLO, MODEL, Provider


@pytest.fixture
def app(provider: Provider) -> Iterator[InProcess]:
    upstream = {"name": "p", "kind": "openai", "base_url": provider.base_url, "models": [MODEL]}
    with in_process(upstreams=[upstream]) as running:
        yield running


def test_a_chat_is_translated_there_and_back(app: InProcess, provider: Provider) -> None:
    messages = [{"role": "user", "content": "hi"}]
    answer = app.ask("POST", "/api/chat", {"model": MODEL, "messages": messages, "stream": False})
    assert answer.content_type == "application/json; charset=utf-8"
    assert (answer.json["message"]["content"], answer.json["done"]) == (HELLO, True)
    assert provider.bodies(CHAT)[0]["messages"] == messages


def test_a_completion_streams_lines(app: InProcess) -> None:
    lines = app.ask("POST", "/api/generate", {"model": MODEL, "prompt": "hi"}).data.splitlines()
    assert "".join(json.loads(line)["response"] for line in lines) == HELLO
    assert json.loads(lines[-1])["done"] is True


@pytest.mark.parametrize(("keep_alive", "reason"), [("5m", "load"), (0, "unload")])
def test_loading_is_answered_without_the_provider(
    app: InProcess, provider: Provider, keep_alive: object, reason: str
) -> None:
    answer = app.ask("POST", "/api/generate", {"model": MODEL, "keep_alive": keep_alive})
    assert (answer.json["done_reason"], answer.json["response"]) == (reason, "")
    assert provider.bodies(CHAT) == []


def test_both_embedding_routes_return_vectors(app: InProcess, provider: Provider) -> None:
    assert (
        len(app.ask("POST", "/api/embed", {"model": MODEL, "input": ["a", "b"]}).json["embeddings"])
        == 2
    )
    assert app.ask("POST", "/api/embeddings", {"model": MODEL, "prompt": "a"}).json["embedding"]
    assert len(provider.bodies(EMBEDDINGS)) == 2


@pytest.fixture(scope="module")
def two_boxes() -> Iterator[InProcess]:
    with (
        Box("one", ["a", "both"], version="0.30.1") as one,
        Box("two", ["b", "both"], version="0.9.2") as two,
    ):
        with in_process(upstreams=[one.declared, two.declared]) as app:
            one.loaded = ["a:latest"]
            yield app


def test_the_list_has_the_models_of_both_once(two_boxes: InProcess) -> None:
    names = [row["name"] for row in two_boxes.ask("GET", "/api/tags").json["models"]]
    assert sorted(names) == ["a:latest", "b:latest", "both:latest"]


def test_the_version_is_the_oldest(two_boxes: InProcess) -> None:
    two_boxes.ask("GET", "/readyz")
    assert two_boxes.ask("GET", "/api/version").json["version"] == "0.9.2"


ON, OFF = ({"cloud": {"disabled": disabled, "source": "none"}} for disabled in (False, True))
GATEWAYS = {"cloud": {"disabled": True, "source": "config"}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(ON, ON, ON), (ON, OFF, GATEWAYS), (ON, None, ON), (None, None, GATEWAYS)],
    ids=["agreed", "not agreed", "one does not know", "none knows"],
)
def test_the_status_is_that_of_the_servers_if_they_agree(
    first: Any, second: Any, expected: Any
) -> None:
    with Box("one", ["a"]) as one, Box("two", ["b"]) as two:
        for box, status in ((one, first), (two, second)):
            box.script(
                "/api/status", [Json(status) if status else Whole(b"404 page not found", 404)]
            )
        with in_process(upstreams=[one.declared, two.declared]) as app:
            assert app.ask("GET", "/api/status").json == expected
