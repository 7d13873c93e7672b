"""What the property tests have found, each as one plain example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from ollama_proxy.dialects.native.schemas import EmbeddingsEnvelope, EmbedEnvelope, check_envelope
from ollama_proxy.errors import BadRequest, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Content, Done, Thinking
from ollama_proxy.upstreams.anthropic.events import MessageReader
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.ollama.codec import ChatDecoder
from ollama_proxy.upstreams.ollama.upstream import OllamaReader
from ollama_proxy.upstreams.openai.answers import ChunkDecoder, OpenAIReader
from ollama_proxy.upstreams.openai.pieces import MOST_BLANKS, InlineThinking
from ollama_proxy.wire.lines import StreamTail
from tests.rig.tables import each_row


@pytest.mark.parametrize(
    "pieces",
    [
        (b'{"done":true}\n\n',),
        (b"{", b'"done":true}\n\n'),
        (b'{"done":true}\n', b"\n"),
        (b'{"done":true}', b"\n", b"\n"),
    ],
)
def test_blank_lines_behind_the_last_one_hide_nothing(pieces: Sequence[bytes]) -> None:
    tail = StreamTail()
    for piece in pieces:
        tail.feed(piece)
    assert tail.end().finished and tail.ends_with_newline


def test_nothing_follows_the_end_of_ollamas_answer() -> None:
    lines = b'{"done":true}\n{"message":{"content":"more"}}\n{"done":true}\n'
    assert OllamaReader(ChatDecoder()).feed(lines) == ([Done("stop")], None)


def test_nothing_follows_the_end_of_anthropics_answer() -> None:
    end = b'data: {"type":"message_stop"}\n\n'
    delta = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"more"}}\n\n'
    assert MessageReader("m", Thoughts()).feed(end + delta + end) == ([Done("stop")], None)


@pytest.mark.parametrize(
    "comment", [b": hi\r\r", b": hi\r\n\r\n", b"\xef\xbb\xbf:\n\n:\n\n", b"\r: a: b\r"]
)
def test_comments_come_before_a_stream_whatever_ends_their_lines(comment: bytes) -> None:
    reader = OpenAIReader(ChunkDecoder())
    assert reader.feed(comment) == ([], None)
    assert reader.feed(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n') == (
        [Content("a")],
        None,
    )


@each_row("token", [7, {"a": 1}, ["a"], True])
@each_row("place", ["token", "top_logprobs"])
def test_logprobs_of_something_else_than_texts_are_refused(token: Any, place: str) -> None:
    entry = {"token": "a", place: token if place == "token" else [{"token": token}]}
    line = {"message": {"content": "a"}, "logprobs": [entry]}
    events, failure = OllamaReader(ChatDecoder()).feed(orjson.dumps(line) + b"\n")
    chunk = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [entry]}}]}
    more, another = OpenAIReader(ChunkDecoder()).feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    assert events == more == []
    assert isinstance(failure, UpstreamError) and isinstance(another, UpstreamError)


def test_a_reason_is_a_text() -> None:
    _, failure = OllamaReader(ChatDecoder()).feed(b'{"done":true,"done_reason":["stop"]}\n')
    assert isinstance(failure, UpstreamError)


@each_row("status", [200, 204, 299, 304, 600, 999])
def test_a_refusal_that_is_none_by_its_status_is_the_upstreams_fault(status: int) -> None:
    assert UpstreamRefused(status, "no").status == 502


@each_row("options", [[], ["a"], "a", 7, True])
@each_row("envelope", [EmbedEnvelope, EmbeddingsEnvelope])
def test_options_of_embeddings_are_an_object(envelope: Any, options: Any) -> None:
    with pytest.raises(BadRequest, match=r"options of type map\[string\]interface \{\}"):
        check_envelope(envelope(), {"model": "m", "options": options})


def test_endless_blanks_are_not_held_for_a_thought_that_may_begin() -> None:
    reader = InlineThinking()
    assert reader.events(" " * (MOST_BLANKS - 1)) == []
    assert reader.events(" ") == [Content(" " * MOST_BLANKS)]
    assert InlineThinking().events(" <think>a") == [Thinking("a")]
