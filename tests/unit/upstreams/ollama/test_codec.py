"""Lines of Ollama's native API as hub events: what belongs to the thinking, and
what can't be passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import (
    Answer,
    ChatRequest,
    Content,
    Done,
    GenerateRequest,
    Message,
    Thinking,
    ToolCall,
    collect,
)
from ollama_proxy.upstreams.ollama.codec import (
    ChatDecoder,
    Decoder,
    decode_generate,
    encode_chat,
    encode_generate,
)
from ollama_proxy.upstreams.ollama.upstream import OllamaReader
from tests.rig import every_cut
from tests.rig.nesting import nested
from tests.rig.replay_upstream import Recording, Version, recording, recordings
from tests.rig.tables import check_rows, each_row


def entry(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5}


def chat_line(thinking: str, content: str, *tokens: str) -> dict[str, Any]:
    return {
        "message": {"thinking": thinking, "content": content},
        "logprobs": [entry(token) for token in tokens],
    }


def generate_line(thinking: str, content: str, *tokens: str) -> dict[str, Any]:
    return {
        "thinking": thinking,
        "response": content,
        "logprobs": [entry(token) for token in tokens],
    }


LINES = pytest.mark.parametrize(
    ("decode", "line"),
    [(ChatDecoder(), chat_line), (decode_generate, generate_line)],
    ids=["chat", "generate"],
)


def test_every_tool_call_has_an_id_of_its_own() -> None:
    decode = ChatDecoder()
    calls = [
        event
        for call_id in ("call_1", "call_1", "", None)
        for event in decode(
            {"message": {"tool_calls": [{"id": call_id, "function": {"name": "find"}}]}}
        )
        if isinstance(event, ToolCall)
    ]
    assert calls[0].id == "call_1"
    assert len({call.id for call in calls} - {""}) == 4


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


@each_row("arguments", [nested(252), nested(260), nested(1000), "{}", [1]])
def test_a_call_that_no_answer_could_hold_is_the_model_servers_fault(arguments: Any) -> None:
    with pytest.raises(UpstreamError, match="sent an invalid tool call") as refused:
        ChatDecoder()(called(arguments))
    assert refused.value.status == 502


def test_a_call_as_deep_as_an_answer_can_hold_it() -> None:
    [call] = ChatDecoder()(called(nested(250)))
    assert orjson.loads(orjson.dumps({"content": [{"input": call.arguments}]}))


# --- What does not fit into the context -----------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "unshifted", "said"),
    [
        (False, False, {"truncate": False}),
        (True, False, {}),
        (False, True, {"truncate": False, "shift": False}),
        (True, True, {"shift": False}),
    ],
)
def test_shift_does_not_depend_on_whether_the_prompt_may_be_cut(
    cut: bool, unshifted: bool, said: dict[str, Any]
) -> None:
    chat = encode_chat(
        ChatRequest(model="m", messages=[Message("user", "hi")]), cut=cut, unshifted=unshifted
    )
    text = encode_generate(GenerateRequest(model="m", prompt="hi"), cut=cut, unshifted=unshifted)
    for body in (chat, text):
        assert {name: body[name] for name in ("truncate", "shift") if name in body} == said
        assert body.keys() <= {"model", "messages", "prompt", "stream", "truncate", "shift"}


VERSIONS: tuple[Version, ...] = ("0.24", "0.32")
RECORDED = [(version, row) for version in VERSIONS for row in recordings(version)]


ANSWERED = [
    (version, row)
    for version, row in RECORDED
    if row.path in ("/api/chat", "/api/generate") and row.status == 200 and row.response
]


def test_recorded_answers_are_read_to_their_end() -> None:
    check_rows(((row.name, version, row) for version, row in ANSWERED), check_end)


def check_end(_name: str, _version: Version, row: Recording) -> None:
    """Raise AssertionError if the end of an answer is not read as it was recorded."""
    reader = OllamaReader(ChatDecoder() if row.path == "/api/chat" else decode_generate)
    lines = row.response.splitlines()
    if b'"error"' in lines[-1]:
        assert isinstance(reader.feed(row.response)[1], UpstreamError)
        return
    last = orjson.loads(lines[-1])
    events = reader.whole(row.response) if len(lines) == 1 else reader.feed(row.response)[0]
    end = events[-1]
    assert isinstance(end, Done)
    assert end.done_reason == last.get("done_reason", "stop")
    assert end.prompt_eval_count == last.get("prompt_eval_count", 0)
    assert end.eval_count == last.get("eval_count", 0)


CHAT_STREAM = (
    '{"message":{"thinking":"é"},"done":false}\r\n\n'
    '{"message":{"content":"世\u2028"},"done":false}\n'
    '{"message":{"content":"🎉","tool_calls":[{"id":"c1","function":{"name":"f",'
    '"arguments":{"a":"ü"}}}]},"done":false}\n'
    '{"message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":3}'
).encode()
TEXT_STREAM = (
    '{"thinking":"é","response":"","done":false}\n{"response":"世\u2028🎉","done":false}\n'
    '{"response":"","done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":3}\n'
).encode()


@pytest.mark.parametrize(
    ("decoder", "stream", "calls"),
    [
        (ChatDecoder, CHAT_STREAM, [ToolCall("c1", "f", {"a": "ü"})]),
        (lambda: decode_generate, TEXT_STREAM, []),
    ],
    ids=["chat", "generate"],
)
def test_stream_is_read_the_same_wherever_its_bytes_are_cut(
    decoder: Callable[[], Decoder], stream: bytes, calls: list[ToolCall]
) -> None:
    for parts in [[stream], *every_cut(stream)]:
        reader = OllamaReader(decoder())
        read = [*map(reader.feed, parts), reader.end()]
        events = [event for some, _ in read for event in some]
        assert [failure for _, failure in read if failure] == []
        assert collect(events) == [Answer("世\u2028🎉", "é", calls, [], Done("stop", 7, 3))], parts


@pytest.mark.parametrize("model", ["go", "jinja"])
@pytest.mark.parametrize(("shift", "outgrown"), [("true", True), ("false", False)])
def test_recorded_answer_beyond_its_context_is_recognised_by_its_counts(
    model: str, shift: str, outgrown: bool
) -> None:
    row = recording(f"chat-{model}-answer-beyond-context-shift-{shift}", "0.32")
    context = orjson.loads(row.request)["options"]["num_ctx"]
    [*_, end] = OllamaReader(ChatDecoder(), lambda tokens: tokens > context).whole(row.response)
    assert isinstance(end, Done)
    assert end.outgrown is outgrown
