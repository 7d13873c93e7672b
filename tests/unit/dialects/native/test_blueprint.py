"""The routes of Ollama's API in front of one Ollama server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.dialects.native.blueprint import NATIVE
from tests.rig.in_process import InProcess

MESSAGES = [{"role": "user", "content": "hi"}]


def test_a_chat_streams_json_lines_unless_told_otherwise(demo_app: InProcess) -> None:
    streamed = demo_app.ask("POST", "/api/chat", {"model": "demo", "messages": MESSAGES})
    single = demo_app.ask(
        "POST", "/api/chat", {"model": "demo", "messages": MESSAGES, "stream": False}
    )
    assert streamed.content_type.startswith("application/x-ndjson")
    assert single.content_type.startswith("application/json")
    *lines, last = map(json.loads, streamed.data.splitlines())
    assert [line["done"] for line in lines] == [False] * len(lines)
    assert last["done"] is True
    assert (
        "".join(line["message"]["content"] for line in lines) == single.json["message"]["content"]
    )


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/api/version"])
def test_lists(demo_app: InProcess, path: str) -> None:
    assert demo_app.ask("GET", path).status_code == 200
    assert demo_app.ask("GET", path, token=None).status_code == 401


@pytest.mark.parametrize(
    ("body", "text"),
    [({}, "model"), ({"model": "nothing"}, "nothing"), ({"model": 5}, "model")],
    ids=str,
)
def test_errors_have_ollamas_shape(demo_app: InProcess, body: dict[str, Any], text: str) -> None:
    answer = demo_app.ask("POST", "/api/generate", body)
    assert 400 <= answer.status_code < 500
    assert text in answer.json["error"]


def test_vectors(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/api/embed", {"model": "demo", "input": ["a", "b"]})
    assert len(answer.json["embeddings"]) == 2
    assert demo_app.ask("POST", "/api/embeddings", {"model": "demo", "prompt": "a"}).json[
        "embedding"
    ]


def test_pages_may_call_its_routes_only() -> None:
    assert NATIVE.cors_paths == ("/api/",)
    assert NATIVE.models is None


def test_it_is_asked_last() -> None:
    assert DIALECTS[-1] is NATIVE
