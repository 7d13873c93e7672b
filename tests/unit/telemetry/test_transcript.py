"""What a model said, read back from the bytes that went to the client."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from ollama_proxy.dialects.anthropic import render as anthropic
from ollama_proxy.dialects.anthropic.errors import AnthropicErrors
from ollama_proxy.dialects.native import render as native
from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.dialects.openai import render as openai
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.dialects.responses import render as responses
from ollama_proxy.errors import UpstreamCut
from ollama_proxy.gateway.rendering import ErrorRenderer, Renderer
from ollama_proxy.hub import Choice, Content, Done, Event, Thinking, ToolCall, collect
from ollama_proxy.telemetry import transcript as module
from ollama_proxy.telemetry.transcript import Reader, Transcript, TranscriptRecorder
from tests.rig.tables import each_row

WEATHER = ToolCall(id="call_1", name="get_weather", arguments={"city": "Zürich", "unit": "C"})
TIME = ToolCall(id="call_2", name="time", arguments={})
ANSWERS: dict[str, list[Event]] = {
    "text": [Content("Hello"), Content(" there,\n世界 😀"), Done("stop", 3, 4)],
    "thinking": [Thinking("Let me"), Thinking(" see"), Content("Yes"), Done("stop")],
    "cut": [Content("Hel"), Done("length")],
    "nothing": [Done("stop")],
    "tools": [Thinking("hm"), Content("Looking"), WEATHER, TIME, Done("stop")],
}

Make = Callable[[], Renderer]
#: By dialect: how its answers are read and rendered, and why one with calls ended.
DIALECTS: dict[str, tuple[Reader, Make, str]] = {
    "native chat": (native.read_transcript, lambda: native.ChatRenderer("m", 0.0), "stop"),
    "openai": (
        openai.read_transcript,
        lambda: openai.ChatRenderer("m", include_usage=True),
        "tool_calls",
    ),
    "anthropic": (anthropic.read_transcript, lambda: anthropic.MessageRenderer("m"), "tool_use"),
    "responses": (
        responses.read_transcript,
        lambda: responses.ResponseRenderer("m", {"tools": []}),
        "completed",
    ),
}
FACES: dict[str, tuple[Reader, ErrorRenderer]] = {
    "native": (native.read_transcript, NativeErrors()),
    "openai": (openai.read_transcript, OpenAIErrors()),
    "anthropic": (anthropic.read_transcript, AnthropicErrors()),
}


def heard(reader: Reader, body: bytes, *, is_stream: bool, piece: int = 1 << 30) -> Transcript:
    recorder = TranscriptRecorder(reader, is_stream=is_stream)
    for start in range(0, len(body), piece):
        recorder.feed(body[start : start + piece])
    return recorder.end()


def drawn(renderer: Renderer, events: list[Event]) -> bytes:
    """A stream with a pause in it."""
    begun = renderer.render_stream(events[:1])
    return begun + renderer.render_heartbeat() + renderer.render_stream(events[1:])


def answers(transcript: Transcript) -> list[dict[str, Any]]:
    """The answers, less the dialect's own word for the end."""
    found: Any = transcript.answers()
    return [{name: value for name, value in answer.items() if name != "finish"} for answer in found]


def said(events: list[Event]) -> list[dict[str, Any]]:
    """The same, from the events themselves."""
    return [
        {
            "text": answer.content,
            "thinking": answer.thinking,
            "tool_calls": [
                {"name": call.name, "arguments": call.arguments} for call in answer.tool_calls
            ],
        }
        for answer in collect(events)
    ]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_was_drawn_is_read_back(
    dialect: str, case: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 100)
    reader, make, finish = DIALECTS[dialect]
    events = ANSWERS[case]
    body = drawn(make(), events) if stream else make().render_single(collect(events))
    for piece in (1, 7, 1 << 20):
        transcript = heard(reader, body, is_stream=stream, piece=piece)
        assert answers(transcript) == said(events)
        assert (transcript.error, transcript.cut) == (None, False)
        finishes = [answer["finish"] for answer in transcript.answers() if isinstance(answer, dict)]
        assert all(finishes)
        assert case != "tools" or finishes == [finish]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])
def test_completions_and_several_answers(stream: bool) -> None:
    events: list[Event] = [
        Choice(0),
        Content("a"),
        Choice(1),
        Content("b"),
        Choice(0),
        Content("A"),
        Done("stop"),
    ]
    events += [Choice(1), Done("length")]
    shape = openai.CompletionShape(prompts=("",), n=2)
    for renderer in (
        openai.CompletionRenderer("m", include_usage=False, shape=shape),
        openai.ChatRenderer("m", include_usage=False, n=2),
    ):
        body = renderer.render_stream(events) if stream else renderer.render_single(collect(events))
        transcript = heard(openai.read_transcript, body, is_stream=stream)
        found: Any = transcript.answers()
        assert [(answer["text"], answer["finish"]) for answer in found] == [
            ("aA", "stop"),
            ("b", "length"),
        ]


def test_generate() -> None:
    lines = [
        {"response": "Hel", "thinking": "hm"},
        {"response": "lo"},
        {"response": "", "done": True, "done_reason": "stop"},
    ]
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    [answer] = heard(native.read_transcript, body, is_stream=True).answers()
    assert answer == {"text": "Hello", "thinking": "hm", "tool_calls": [], "finish": "stop"}


def test_fragments_of_calls_are_put_together() -> None:
    """As providers send them: the name once, the arguments in pieces, two calls at once."""
    deltas = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "no JS"}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "function": {"arguments": "ON"}},
    ]
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]} for delta in deltas]
    body = (
        b"".join(b"data: %b\r\n\r\n" % orjson.dumps(chunk) for chunk in chunks)
        + b"data: [DONE]\n\n"
    )
    [answer] = answers(heard(openai.read_transcript, body, is_stream=True))
    assert answer["tool_calls"] == [
        {"name": "f", "arguments": {"x": 1}},
        {"name": "g", "arguments": "no JSON"},
    ]


def test_the_older_call_and_several_choices_are_read() -> None:
    older = {"function_call": {"name": "f", "arguments": "{}"}}
    choices = [{"index": 1, "message": older}, {"index": 0, "text": "a completion"}]
    first, second = answers(
        heard(openai.read_transcript, orjson.dumps({"choices": choices}), is_stream=False)
    )
    assert (first["text"], second["tool_calls"]) == (
        "a completion",
        [{"name": "f", "arguments": {}}],
    )


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thinking_by_either_name(name: str) -> None:
    body = json.dumps(
        {"choices": [{"index": 0, "message": {"content": "x", name: "hm"}}]}, indent=2
    ).encode()
    [answer] = answers(heard(openai.read_transcript, body, is_stream=False))
    assert (answer["thinking"], answer["text"]) == ("hm", "x")


@pytest.mark.parametrize("dialect", FACES)
def test_errors_are_read_as_the_client_was_told(dialect: str) -> None:
    reader, error_renderer = FACES[dialect]
    whole = heard(
        reader, error_renderer.render_error(UpstreamCut("It broke."), "id"), is_stream=False
    )
    frame = heard(
        reader, error_renderer.render_error_frame(UpstreamCut("It broke.")), is_stream=True
    )
    assert (whole.error, frame.error) == ("It broke.", "It broke.")
    assert whole.answers() == frame.answers() == []


def test_a_response_that_failed_says_why() -> None:
    renderer = responses.ResponseRenderer("m", {"tools": []})
    body = renderer.render_stream([Content("Hel")]) + renderer.render_failure(
        UpstreamCut("It broke.")
    )
    transcript = heard(responses.read_transcript, body, is_stream=True)
    assert (answers(transcript)[0]["text"], transcript.error) == ("Hel", "It broke.")


@each_row("dialect", DIALECTS)
@each_row(
    "junk",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"null",
            b"<html>",
            b"\xff\xfe",
            b'{"message":5}',
            b'{"choices":7}',
            b'{"choices":[5]}',
        ),
        *(
            b'{"type":"content_block_delta"}',
            b'{"type":"response.output_text.delta"}',
            b'{"choices":[{"delta":[1]}]}',
        ),
        *(
            b'{"message":{"tool_calls":[{}]}}',
            b'{"message":{"content":{"a":1}}}',
            b'{"error":{"message":[1]}}',
        ),
        b'{"object":"response","output":5,"type":"message","content":[5]}',
    ],
)
def test_an_answer_of_another_shape_is_no_answer(dialect: str, junk: bytes) -> None:
    reader, *_ = DIALECTS[dialect]
    for is_stream in (True, False):
        transcript = heard(
            reader, junk + b"\ndata: " + junk if is_stream else junk, is_stream=is_stream
        )
        assert answers(transcript) in (
            [],
            [{"text": "", "thinking": "", "tool_calls": [{"name": None, "arguments": {}}]}],
        )


def test_junk_spoils_nothing_of_what_is_around_it() -> None:
    good = [orjson.dumps({"message": {"content": text}}) for text in ("a", "b")]
    body = b"\n".join([good[0], b'{"message":5}', b"\xff", b'{"message":{"content":', good[1], b""])
    assert answers(heard(native.read_transcript, body, is_stream=True))[0]["text"] == "ab"


def test_memory_is_bounded_while_a_stream_goes_on() -> None:
    recorder = TranscriptRecorder(native.read_transcript, is_stream=True)
    line = orjson.dumps({"message": {"content": "x" * 1000}}) + b"\n"
    held = 0
    for _ in range(5000):
        recorder.feed(line)
        held = max(held, recorder.held)
    assert held <= module.PIECE_BYTES + len(line) + module.MAX_CHARS + module.FRAME_BYTES + 200
    transcript = recorder.end()
    assert len(answers(transcript)[0]["text"]) == module.MAX_CHARS
    assert transcript.cut


def calling(number: int) -> dict[str, Any]:
    return {"index": number, "function": {"name": "f", "arguments": '{"x":1}'}}


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "tok "},
        {"reasoning": "思考 "},
        {"content": "tok ", "tool_calls": [calling(0)]},
        {"tool_calls": [calling(number) for number in range(40)]},
    ],
    ids=["text", "thinking", "call", "calls"],
)
def test_what_it_holds_is_what_it_takes_in_memory(delta: dict[str, Any]) -> None:
    """However small the pieces are in which an answer comes."""
    event = b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, "delta": delta}]})
    tracemalloc.start()
    try:
        listeners = [TranscriptRecorder(openai.read_transcript, is_stream=True) for _ in range(5)]
        for recorder in listeners:
            for _ in range(4 * module.PIECE_BYTES // len(event)):
                recorder.feed(event)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = sum(recorder.held for recorder in listeners)
    assert taken / 1.3 < held < taken * 1.3


@pytest.mark.parametrize("is_stream", [True, False])
def test_memory_is_bounded_where_no_line_ends(is_stream: bool) -> None:
    recorder = TranscriptRecorder(native.read_transcript, is_stream=is_stream)
    held = 0
    for _ in range(200):
        recorder.feed(b"x" * 65536)
        held = max(held, recorder.held)
    assert held <= module.MAX_SINGLE_BYTES + 65536
    assert recorder.end().cut


def test_calls_are_bounded() -> None:
    calls = [{"function": {"name": "f", "arguments": {"x": "y" * 100}}}] * 20_000
    transcript = heard(
        native.read_transcript, orjson.dumps({"message": {"tool_calls": calls}}), is_stream=False
    )
    assert len(answers(transcript)[0]["tool_calls"]) == module.MAX_CALLS
    assert transcript.cut
