"""What every kind of upstream offers to the gateway."""

from __future__ import annotations

import pytest

from ollama_proxy.upstreams.anthropic.upstream import AnthropicUpstream
from ollama_proxy.upstreams.base import Transport, Upstream, UpstreamRequest
from ollama_proxy.upstreams.demo.transport import DemoTransport
from ollama_proxy.upstreams.litellm.upstream import LiteLLMUpstream
from ollama_proxy.upstreams.ollama.upstream import OllamaUpstream
from ollama_proxy.upstreams.openai.upstream import OpenAICompatibleUpstream
from ollama_proxy.upstreams.transport.session import HttpTransport


def offered(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [AnthropicUpstream, LiteLLMUpstream, OllamaUpstream, OpenAICompatibleUpstream])
def test_every_kind_offers_all_of_it(kind: type) -> None:
    assert offered(Upstream) - offered(kind) <= {"name", "dialects"}


@pytest.mark.parametrize("kind", [DemoTransport, HttpTransport])
def test_every_transport_offers_all_of_it(kind: type) -> None:
    assert offered(Transport) <= offered(kind)


def test_a_request_may_be_sent_once_more_unless_that_is_denied() -> None:
    request = UpstreamRequest("GET", "/api/tags")
    assert (request.replayable, request.body, request.length, tuple(request.headers)) == (True, b"", None, ())
