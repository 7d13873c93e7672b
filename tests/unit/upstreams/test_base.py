"""The base class of upstreams: what a kind that implements nothing but `chat` and `models` does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ollama_proxy.errors import BadRequest, UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    Content,
    Done,
    EmbedRequest,
    Event,
    GenerateRequest,
    Message,
    Model,
)
from ollama_proxy.upstreams.base import Connections, Upstream, UpstreamRequest, as_chat
from ollama_proxy.upstreams.call import Call


class Events(list[Sequence[Event]]):
    """Batches of events that are all there at once."""

    def close(self) -> None:
        """Nothing to close."""


class Smallest(Upstream):
    """A kind without anything that is optional."""

    def __init__(self) -> None:
        super().__init__("smallest")
        self.asked: list[ChatRequest] = []

    def chat(self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None) -> Events:
        """Keeps the request."""
        self.asked.append(request)
        return Events([[Content("Hi"), Done("stop")]])

    def models(self, call: Call) -> list[Model]:
        """One model."""
        return [Model("m", 0, self.name)]


PROMPT = GenerateRequest(
    model="m",
    prompt="a",
    system="Be kind.",
    stream=True,
    think=False,
    options={"seed": 1},
    user="ann",
    timeout_ms=5,
)


def test_a_prompt_becomes_a_chat(call: Call) -> None:
    upstream = Smallest()
    assert list(upstream.generate(PROMPT, call)) == [[Content("Hi"), Done("stop")]]
    [asked] = upstream.asked
    assert asked == as_chat(PROMPT) and asked.messages == [
        Message("system", "Be kind."),
        Message("user", "a"),
    ]
    assert (asked.model, asked.stream, asked.think, asked.options, asked.user) == (
        "m",
        True,
        False,
        {"seed": 1},
        "ann",
    )


def test_a_prompt_without_a_system_prompt_is_one_message() -> None:
    assert as_chat(GenerateRequest(model="m", prompt="a")).messages == [Message("user", "a")]


def test_a_suffix_is_refused_in_ollamas_words(call: Call) -> None:
    with pytest.raises(BadRequest, match="^m does not support insert$"):
        Smallest().generate(GenerateRequest(model="m", prompt="a", suffix="b"), call)


def test_embeddings_are_refused(call: Call) -> None:
    with pytest.raises(BadRequest, match="^m does not support embeddings$"):
        Smallest().embed(EmbedRequest(model="m", input=["a"]), call)


def test_requests_are_not_forwarded_unchanged(call: Call) -> None:
    with pytest.raises(UpstreamError):
        Smallest().forward(UpstreamRequest("POST", "/v1/chat/completions"), call)


def test_nothing_is_known_of_models_and_connections(call: Call) -> None:
    upstream, chat = Smallest(), as_chat(PROMPT)
    assert (upstream.capabilities("m", call), upstream.loaded_context("m", call)) == (None, None)
    assert (upstream.loaded(call), upstream.is_outgrown("m", 10**9, 1, call.clock)) == ([], False)
    assert (upstream.list_approximated(chat), upstream.select_passthrough(chat)) == (
        (),
        frozenset(),
    )
    assert (upstream.one_name, upstream.takes_any_model) == (None, False)
    assert (upstream.version(call), upstream.connections) == ("", Connections(active=0, idle=0))
    upstream.close()


def test_a_request_is_replayable_by_default() -> None:
    request = UpstreamRequest("GET", "/api/tags")
    assert (request.replayable, request.body, request.length, tuple(request.headers)) == (
        True,
        b"",
        None,
        (),
    )
