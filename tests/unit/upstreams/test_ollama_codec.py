"""Lines of Ollama's native API as hub events: what belongs to the thinking, and what can't be passed on."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Content, Done, Thinking, collect
from ollama_proxy.upstreams.ollama_codec import ChatDecoder, Decoder, decode_events, decode_generate
from tests.rig.nesting import nested


def entry(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5}


def chat_line(thinking: str, content: str, *tokens: str) -> dict[str, Any]:
    return {"message": {"thinking": thinking, "content": content}, "logprobs": [entry(token) for token in tokens]}


def generate_line(thinking: str, content: str, *tokens: str) -> dict[str, Any]:
    return {"thinking": thinking, "response": content, "logprobs": [entry(token) for token in tokens]}


LINES = pytest.mark.parametrize(
    ("decode", "line"), [(ChatDecoder(), chat_line), (decode_generate, generate_line)], ids=["chat", "generate"]
)


@LINES
@pytest.mark.parametrize(
    ("thinking", "content", "tokens", "of_thinking"),
    [
        ("hm", "ab", ["h", "m", "</think>", "a", "b"], 3),
        ("hm", "ab", ["h", "m", "</think>", "\n\n", "ab"], 4),
        ("hm", "ab", ["hm", "a", "b"], 1),
        ("hm", "ab", ["b"], 0),
        ("hm", "", ["h", "m"], 2),
        ("", "ab", ["a", "b"], 0),
        ("", "", ["<"], 0),
    ],
)
def test_entries_are_those_of_the_thinking_and_behind_them_those_of_the_text(
    decode: Decoder, line: Any, thinking: str, content: str, tokens: list[str], of_thinking: int
) -> None:
    events = decode(line(thinking, content, *tokens))
    entries = [entry(token) for token in tokens]
    expected = [Thinking(thinking, entries[:of_thinking])] if thinking else []
    text = [Content(content, entries[of_thinking:])] if content or not thinking else []
    assert events == [*expected, *text]


@LINES
def test_a_single_answer_has_the_entries_that_the_stream_has(decode: Decoder, line: Any) -> None:
    steps = [line("h", "", "h"), line("m", "", "m"), line("", "a", "a"), line("", "b", "b")]
    streamed = collect([event for step in steps for event in decode(step)] + [Done("stop")])
    whole = collect([*decode(line("hm", "ab", "h", "m", "a", "b")), Done("stop")])
    assert whole == streamed
    assert [one["token"] for one in whole[0].logprobs] == ["a", "b"]


def called(arguments: Any) -> dict[str, Any]:
    return {"message": {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}}


@pytest.mark.parametrize("arguments", [nested(252), nested(260), nested(1000), "{}", [1]])
def test_a_call_that_no_answer_could_hold_is_the_model_servers_fault(arguments: Any) -> None:
    with pytest.raises(UpstreamError, match="sent a tool call that can't be read") as refused:
        decode_events(ChatDecoder(), called(arguments))
    assert refused.value.status == 502


def test_a_call_as_deep_as_an_answer_can_hold_it() -> None:
    [call] = ChatDecoder()(called(nested(250)))
    assert orjson.loads(orjson.dumps({"content": [{"input": call.arguments}]}))
