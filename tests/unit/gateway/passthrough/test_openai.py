"""OpenAI's requests to a provider that takes them as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from ollama_proxy.dialects.openai.blueprint import OPENAI
from ollama_proxy.errors import ClientGone
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.passthrough import openai
from ollama_proxy.settings import Stream
from ollama_proxy.upstreams.base import Connections, Reply, UpstreamRequest
from ollama_proxy.upstreams.openai.upstream import OpenAICompatibleUpstream
from tests.rig.in_process import InProcess, in_process
from tests.rig.provider import CHAT, MODEL, Provider
from tests.unit.upstreams.stock import new_call, node

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def app(provider: Provider) -> Iterator[InProcess]:
    models = {MODEL: MODEL, "ours": MODEL}
    upstream = {"name": "p", "kind": "openai", "base_url": provider.base_url, "models": models}
    with in_process(upstreams=[upstream]) as running:
        yield running


def ask(app: InProcess, model: str = MODEL, **fields: Any) -> Any:
    return app.ask("POST", CHAT, {"model": model, "messages": MESSAGES, **fields})


def test_unknown_fields_pass_through(app: InProcess, provider: Provider) -> None:
    assert ask(app, brand_new={"z": 1, "a": 2}).status_code == 200
    assert provider.bodies() == [
        {"model": MODEL, "messages": MESSAGES, "brand_new": {"z": 1, "a": 2}}
    ]


def test_answer_has_the_model_name_that_the_client_used(app: InProcess, provider: Provider) -> None:
    assert ask(app, "ours").json["model"] == "ours"
    streamed = ask(app, "ours", stream=True).data
    assert (
        streamed.count(b'"model":"ours"') + streamed.count(b'"model": "ours"')
        == streamed.count(b'"model"')
        > 1
    )
    assert {body["model"] for body in provider.bodies()} == {MODEL}


def test_a_stream_ends_properly(app: InProcess) -> None:
    answer = ask(app, stream=True)
    assert answer.content_type.startswith("text/event-stream")
    assert answer.data.endswith(b"data: [DONE]\n\n")


def test_fields_of_the_gateway_are_translated(app: InProcess, provider: Provider) -> None:
    assert ask(app, num_ctx=4096).status_code == 200
    assert "num_ctx" not in provider.bodies()[0]


class Refusal:
    """A refusal whose client leaves while it is read, and the transport that gets it."""

    status, headers, is_closed = 400, (), False
    connections = Connections()

    def open(self, request: UpstreamRequest, *_: object, **__: object) -> Reply:
        """See Transport.open."""
        return cast(Reply, self)

    def read_some(self, wait_s: float | None = None) -> bytes:
        """See Reply.read_some."""
        raise ClientGone

    def close(self) -> None:
        """See Reply.close."""
        self.is_closed = True


def test_refusal_whose_client_leaves_is_closed() -> None:
    reply, provider = Refusal(), node("p", MODEL, kind="openai")
    provider.upstream = OpenAICompatibleUpstream("p", cast(Any, reply))
    exchange = Exchange(
        "id", "POST", CHAT, "127.0.0.1", OPENAI, new_call(), data={"model": MODEL}, model=MODEL
    )
    with pytest.raises(ClientGone):
        openai.OpenAIPassthrough(exchange, openai.CHAT, Stream()).send(provider, MODEL)
    assert reply.is_closed
