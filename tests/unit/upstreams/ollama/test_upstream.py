"""One Ollama server over real sockets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from ollama_proxy.errors import UpstreamConnect, UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Answer, ChatRequest, Done, EmbedRequest, GenerateRequest, Message
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama.upstream import OllamaUpstream, read_progress
from ollama_proxy.upstreams.transport.session import HttpTransport
from tests.rig.fault_upstream import MODEL, WORDS, Cut, FaultUpstream, Json, Lines
from tests.unit.upstreams.stock import answered

CHAT = ChatRequest(model=MODEL, messages=[Message("user", "hi")])


@pytest.fixture
def upstream(fault_upstream: FaultUpstream) -> Iterator[OllamaUpstream]:
    with closing(OllamaUpstream("box", HttpTransport(fault_upstream.url))) as made:
        yield made


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_and_a_completion(upstream: OllamaUpstream, call: Call, stream: bool) -> None:
    chat = answered(upstream, ChatRequest(model=MODEL, messages=CHAT.messages, stream=stream), call)
    text = answered(upstream, GenerateRequest(model=MODEL, prompt="hi", stream=stream), call)
    assert chat == text
    assert (chat.content, chat.done.done_reason) == ("".join(WORDS), "stop")
    assert isinstance(chat, Answer) and isinstance(chat.done, Done)


def test_what_ollama_refuses_keeps_its_status_and_text(
    upstream: OllamaUpstream, fault_upstream: FaultUpstream, call: Call
) -> None:
    fault_upstream.script("/api/chat", [Json({"error": "model 'm' not found"}, 404)])
    with pytest.raises(UpstreamRefused, match="model 'm' not found") as raised:
        answered(upstream, CHAT, call)
    assert raised.value.status == 404


def test_a_stream_without_its_end_is_cut(
    upstream: OllamaUpstream, fault_upstream: FaultUpstream, call: Call
) -> None:
    line = {"model": MODEL, "message": {"role": "assistant", "content": "Hel"}, "done": False}
    for script in ([Lines([line])], [Lines([line]), Cut()]):
        fault_upstream.script("/api/chat", script)
        with pytest.raises(UpstreamCut):
            answered(upstream, ChatRequest(model=MODEL, messages=CHAT.messages, stream=True), call)


def test_vectors_lists_and_version(upstream: OllamaUpstream, call: Call) -> None:
    assert len(upstream.embed(EmbedRequest(model=MODEL, input=["a", "b"]), call).embeddings) == 2
    assert [model.owned_by for model in upstream.models(call)] != []
    assert upstream.version(call) == "0.24.0"
    assert "tools" in (upstream.capabilities(MODEL, call) or ())
    assert upstream.loaded(call)[0]["context_length"] == 8192


def test_a_server_that_is_down(
    upstream: OllamaUpstream, fault_upstream: FaultUpstream, call: Call
) -> None:
    fault_upstream.refuse()
    with pytest.raises(UpstreamConnect):
        upstream.version(call)


class Pieces:
    """A reply whose body comes in these pieces."""

    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self.status = status
        self._pieces = list(pieces)

    def wait_head(self, wait_s: float | None = None) -> bool:
        """See Reply."""
        return True

    def read_some(self, wait_s: float | None = None) -> bytes:
        """See Reply."""
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        """See Reply."""


def test_lines_come_without_the_last_one() -> None:
    reply = Pieces(
        b'{"status":"pulling"}\n\n{"sta', b'tus":"verifying"}\n', b'{"status":"success"}'
    )
    assert list(read_progress(reply, streams=True)) == [
        {"status": "pulling"},
        {"status": "verifying"},
    ]


def test_an_answer_that_does_not_stream_is_read_to_its_end() -> None:
    reply = Pieces(b'{"status":', b'"success"}')
    assert not list(read_progress(reply, streams=False)) and not reply.read_some()


@pytest.mark.parametrize(
    ("reply", "kind", "status", "text"),
    [
        (Pieces(b'{"error":"no space"}', status=507), UpstreamRefused, 507, "no space"),
        (
            Pieces(b'{"status":"pulling"}\n{"error":"no manifest"}\n'),
            UpstreamRefused,
            500,
            "no manifest",
        ),
        (Pieces(b'{"status":"pulling"}\n'), UpstreamCut, 502, ""),
        (Pieces(b"<html>\n"), UpstreamError, 502, ""),
    ],
)
def test_what_does_not_end_with_success_has_failed(
    reply: Pieces, kind: type[UpstreamError], status: int, text: str
) -> None:
    with pytest.raises(kind) as failure:
        list(read_progress(reply, streams=True))
    assert failure.value.status == status and text in str(failure.value)
