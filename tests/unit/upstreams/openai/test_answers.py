"""Answers of OpenAI's API to events: wherever providers put things, and
however the bytes were cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.dialects.openai.render import render_models
from ollama_proxy.errors import UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Answer, Content, Done, Event, Model, Thinking, ToolCall, collect
from ollama_proxy.upstreams.answer_events import GRACE_S
from ollama_proxy.upstreams.openai.answers import ChunkDecoder, OpenAIReader, decode_models
from ollama_proxy.upstreams.openai.messages import Thought
from tests.rig import every_cut
from tests.rig import provider as said
from tests.rig.provider import chunk, chunks, completion, frames
from tests.rig.tables import each_row
from tests.unit.upstreams.openai.reading import read_parts, read_stream

#: Whole, and in single bytes.
SIZES = (None, 1)
CALL = ToolCall("c1", "f", {"b": 1, "a": "世🎉"})
SAID_CALL = said.call("f", {"b": 1, "a": "世🎉"}, "c1")


def read(
    body: bytes, size: int | None = None, **options: Any
) -> tuple[list[Event], UpstreamError | None]:
    """The events of a stream, and what went wrong behind them."""
    return read_stream(OpenAIReader(ChunkDecoder(**options)), body, size)


def whole(document: Any, **options: Any) -> list[Event]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return OpenAIReader(ChunkDecoder(**options)).whole(data)


def answer(events: list[Event]) -> Answer:
    [one] = collect(events)
    return one


DONE = Done("stop", 7, 3)

STREAMS: dict[str, tuple[bytes, Answer]] = {
    "text": (frames(chunks("Hi, 世界🎉")), Answer("Hi, 世界🎉", "", [], [], DONE)),
    "thinking": (frames(chunks("Hi", thinking="hm, 世")), Answer("Hi", "hm, 世", [], [], DONE)),
    "thinking by its other name": (
        frames(chunks("Hi", thinking="hm", reasoning="reasoning")),
        Answer("Hi", "hm", [], [], DONE),
    ),
    "thinking by both names": (
        frames([chunk({"reasoning": "hm", "reasoning_content": "hm"}), *chunks("Hi")]),
        Answer("Hi", "hm", [], [], DONE),
    ),
    "thinking in parts": (
        frames(
            [
                chunk(
                    {
                        "content": [
                            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
                        ]
                    }
                ),
                *chunks("Hi"),
            ]
        ),
        Answer("Hi", "hm", [], [], DONE),
    ),
    "text in parts": (
        frames([chunk({"content": ["H", {"type": "text", "text": "i"}]}), *chunks("")]),
        Answer("Hi", "", [], [], DONE),
    ),
    "a refusal": (
        frames([chunk({"refusal": "No."}), *chunks("")]),
        Answer("No.", "", [], [], DONE),
    ),
    "calls": (frames(chunks("Hi", calls=[SAID_CALL])), Answer("Hi", "", [CALL], [], DONE)),
    "a limit": (
        frames(chunks("Hi", finish="length")),
        Answer("Hi", "", [], [], Done("length", 7, 3)),
    ),
    "a limit by another name": (
        frames(chunks("Hi", finish="MAX_TOKENS")),
        Answer("Hi", "", [], [], Done("length", 7, 3)),
    ),
    "a filter": (frames(chunks("Hi", finish="content_filter")), Answer("Hi", "", [], [], DONE)),
    "an unknown end": (frames(chunks("Hi", finish="eos")), Answer("Hi", "", [], [], DONE)),
    "usage with choices null": (
        frames(chunks("Hi", usage_at=said.OWN_NULL)),
        Answer("Hi", "", [], [], DONE),
    ),
    "usage with the finish": (
        frames(chunks("Hi", usage_at=said.WITH_FINISH)),
        Answer("Hi", "", [], [], DONE),
    ),
    "usage everywhere": (
        frames(chunks("Hi", usage_at=said.EVERYWHERE)),
        Answer("Hi", "", [], [], DONE),
    ),
    "usage nowhere": (
        frames(chunks("Hi", usage_at=said.NOWHERE)),
        Answer("Hi", "", [], [], Done("stop")),
    ),
    "usage without choices": (
        frames([*chunks("Hi", usage_at=said.NOWHERE), {"usage": said.USAGE}]),
        Answer("Hi", "", [], [], DONE),
    ),
    "usage of a cache": (
        frames(chunks("Hi", usage=said.USAGE | {"prompt_tokens_details": {"cached_tokens": 5}})),
        Answer("Hi", "", [], [], Done("stop", 7, 3, cached=5)),
    ),
    "usage null behind the usage": (
        frames([*chunks("Hi"), {"choices": [], "usage": None}]),
        Answer("Hi", "", [], [], DONE),
    ),
    "usage in a place of its own": (
        frames([chunk({"content": "Hi"}), chunk(finish="stop", x_groq={"usage": said.USAGE})]),
        Answer("Hi", "", [], [], DONE),
    ),
    "nothing": (frames(chunks("")), Answer("", "", [], [], DONE)),
    "null everywhere": (
        frames(
            [
                chunk({"role": None, "content": None, "tool_calls": None, "reasoning": None}),
                *chunks("Hi"),
            ]
        ),
        Answer("Hi", "", [], [], DONE),
    ),
    "a finish that is none": (
        frames([chunk({"content": "Hi"}, finish="null"), chunk({}, finish=""), *chunks("")]),
        Answer("Hi", "", [], [], DONE),
    ),
    "text behind the end of the stream": (
        frames(chunks("Hi")) + frames([chunk({"content": "more"})]),
        Answer("Hi", "", [], [], DONE),
    ),
    "no [DONE]": (frames(chunks("Hi"), done=False), Answer("Hi", "", [], [], DONE)),
    "no [DONE] and no blank line": (
        frames(chunks("Hi"), done=False).rstrip(),
        Answer("Hi", "", [], [], DONE),
    ),
    "no finish but [DONE]": (
        frames([chunk({"content": "Hi"})]),
        Answer("Hi", "", [], [], Done("stop")),
    ),
    "comments": (
        b": OPENROUTER PROCESSING\n\n\n: keep-alive\n\n" + frames(chunks("Hi")),
        Answer("Hi", "", [], [], DONE),
    ),
    "other line ends": (
        frames(chunks("Hi")).replace(b"\n", b"\r\n"),
        Answer("Hi", "", [], [], DONE),
    ),
    "one object instead": (json.dumps(completion("Hi")).encode(), Answer("Hi", "", [], [], DONE)),
    "one object behind comments": (
        b": keep-alive\n\n\n" + json.dumps(completion("Hi")).encode(),
        Answer("Hi", "", [], [], DONE),
    ),
    "filters in front": (
        frames([{"choices": [], "prompt_filter_results": [{}]}, *chunks("Hi")]),
        Answer("Hi", "", [], [], DONE),
    ),
    "completions": (
        frames([{"choices": [{"text": "Hi", "finish_reason": None}]}, *chunks("")]),
        Answer("Hi", "", [], [], DONE),
    ),
}


EVERYTHING = (
    b": hi\r\n\r\n\n"
    + frames(chunks("Hi, 世🎉", thinking="é", calls=[SAID_CALL])).replace(b"\n", b"\r\n", 8),
    Answer("Hi, 世🎉", "é", [CALL], [], DONE),
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [EVERYTHING, STREAMS["one object behind comments"]],
    ids=["everything", "one object behind comments"],
)
def test_stream_is_read_the_same_wherever_its_bytes_are_cut(body: bytes, expected: Answer) -> None:
    for parts in [[body], *every_cut(body)]:
        events, failure = read_parts(OpenAIReader(ChunkDecoder()), parts)
        assert (answer(events), failure) == (expected, None), parts


@each_row("size", SIZES)
@each_row(("body", "expected"), STREAMS.values())
def test_streams(body: bytes, expected: Answer, size: int | None) -> None:
    events, failure = read(body, size)
    assert failure is None
    got = answer(events)
    assert [list(call.arguments) for call in got.tool_calls] == [
        list(call.arguments) for call in expected.tool_calls
    ]
    assert got == expected
    assert [event for event in events if isinstance(event, Done)] == [events[-1]]


SINGLES: dict[str, tuple[Any, Answer]] = {
    "text": (completion("Hi"), Answer("Hi", "", [], [], DONE)),
    "thinking": (completion("Hi", thinking="hm"), Answer("Hi", "hm", [], [], DONE)),
    "thinking by its other name": (
        completion("Hi", thinking="hm", reasoning="reasoning"),
        Answer("Hi", "hm", [], [], DONE),
    ),
    "calls and no text": (completion(None, calls=[SAID_CALL]), Answer("", "", [CALL], [], DONE)),
    "a limit": (completion("Hi", finish="length"), Answer("Hi", "", [], [], Done("length", 7, 3))),
    "no finish": (completion("Hi", finish_reason=None), Answer("Hi", "", [], [], DONE)),
    "no usage": (completion("Hi", usage={}), Answer("Hi", "", [], [], Done("stop"))),
    "blank lines in front": (
        b"\n\n\r\n " + json.dumps(completion("Hi")).encode(),
        Answer("Hi", "", [], [], DONE),
    ),
    "a stream instead": (frames(chunks("Hi")), Answer("Hi", "", [], [], DONE)),
    "a completion": (
        {"choices": [{"text": "Hi", "finish_reason": "stop"}]},
        Answer("Hi", "", [], [], Done("stop")),
    ),
}


@each_row(("document", "expected"), SINGLES.values())
def test_single_answers(document: Any, expected: Answer) -> None:
    assert answer(whole(document)) == expected


@pytest.mark.parametrize("size", SIZES)
def test_deprecated_function_call(size: int | None) -> None:
    first, second = {"name": "f", "arguments": '{"b":1,'}, {"arguments": '"a":"世🎉"}'}
    told = [
        chunk({"function_call": first}),
        chunk({"function_call": second}),
        chunk(finish="function_call"),
    ]
    events, failure = read(frames(told), size)
    assert failure is None
    [call] = answer(events).tool_calls
    assert (call.name, call.arguments) == (CALL.name, CALL.arguments)
    assert call.id


def test_empty_chunks_give_no_events() -> None:
    decoder = ChunkDecoder()
    assert decoder.decode(chunk({"role": "assistant"})) == []
    assert decoder.decode(chunk({"content": ""})) == []


def test_calls_arrive_with_the_finish_reason_and_done_after_the_usage() -> None:
    reader = OpenAIReader(ChunkDecoder())
    *told, usage = chunks("", calls=[SAID_CALL])
    assert reader.feed(frames(told[:-1], done=False)) == ([], None)
    before = reader.grace_s
    assert reader.feed(frames(told[-1:], done=False)) == ([CALL], None)
    assert [before, reader.grace_s] == [None, GRACE_S]
    assert reader.feed(frames([usage])) == ([DONE], None)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_stream_without_a_finish_reason_is_cut(keep: int) -> None:
    events, failure = read(frames(chunks("Hello")[:keep], done=False))
    assert isinstance(failure, UpstreamCut)
    assert not any(isinstance(event, Done) for event in events)


def test_null_finish_reason_does_not_end_the_stream() -> None:
    _, failure = read(frames([chunk({"content": "Hi"}, finish="null")], done=False))
    assert isinstance(failure, UpstreamCut)


FAILURES: dict[str, tuple[list[Any], int, str]] = {
    "an error": ([said.error("slow down", code=429)], 429, "slow down"),
    "an error beside the choices": ([chunk({}) | said.error("oops", code=502)], 502, "oops"),
    "an error in the choice": (
        [{"choices": [{"delta": {}, "error": {"message": "oops"}, "finish_reason": "error"}]}],
        502,
        "oops",
    ),
    "an error in the choice alone": (
        [{"choices": [{"delta": {}, "error": {"message": "oops"}}]}],
        502,
        "oops",
    ),
    "a finish that is one": ([chunk(finish="error")], 502, "failed"),
    "no resources": ([chunk(finish="insufficient_system_resource")], 503, "resources"),
    "an abort": ([chunk(finish="abort")], 502, "stopped in the middle"),
    "a code and a message": (
        [{"code": 20012, "message": "Model does not exist"}],
        404,
        "Model does not exist",
    ),
    "an older form": ([{"object": "error", "message": "oops", "code": 400}], 400, "oops"),
    "no JSON": ([b"data: {oops\n\n"], 502, "invalid response"),
    "another shape": ([{"choices": [1]}], 502, "invalid response"),
    "another shape of choices": ([{"choices": {"a": 1}}], 502, "invalid response"),
    "a text that is none": ([chunk({"content": 7})], 502, "invalid response"),
    "logprobs that are none": (
        [chunk({"content": "a"}) | {"choices": [{"delta": {}, "logprobs": {"content": [1]}}]}],
        502,
        "invalid response",
    ),
    "a call that is cut": (chunks("", calls=[said.call("f", '{"a":')]), 502, "tool call"),
    "a call that is no object": ([chunk({"tool_calls": [7]})], 502, "invalid response"),
}


@each_row("size", SIZES)
@each_row(("documents", "status", "text"), FAILURES.values())
def test_events_before_a_failure_are_delivered(
    documents: list[Any], status: int, text: str, size: int | None
) -> None:
    events, failure = read(frames([chunk({"content": "Hi"}), *documents], done=False), size)
    assert events[0] == Content("Hi")
    assert not any(isinstance(event, Done) for event in events)
    assert failure is not None
    assert (failure.status, text in str(failure)) == (status, True)


BAD_SINGLES: dict[str, tuple[Any, int]] = {
    "an error": (said.error("slow down", code=429), 429),
    "a code and a message": ({"code": 50000, "message": "oops", "data": None}, 502),
    "a page": (b"<!DOCTYPE html><html></html>", 502),
    "nothing": (b"", 502),
    "no JSON": (b"{oops", 502),
    "a text": (b"oops", 502),
    "a list": (b"[]", 502),
    "no choices": ({"id": "1"}, 502),
    "choices that are empty": ({"choices": []}, 502),
    "a call that is cut": (completion(None, calls=[said.call("f", '{"a":')]), 502),
    "a stream that was cut": (frames(chunks("Hi")[:2], done=False), 502),
}


@each_row(("document", "status"), BAD_SINGLES.values())
def test_invalid_single_answers_are_errors(document: Any, status: int) -> None:
    with pytest.raises(UpstreamError) as failed:
        whole(document)
    assert failed.value.status == status


@pytest.mark.parametrize(
    "body", [b"<html></html>", b'{"error":{"message":"oops"}}', b"", b": hi\n\n"]
)
def test_invalid_streams_are_errors(body: bytes) -> None:
    assert [read(body, size)[1] is None for size in SIZES] == [False] * len(SIZES)


def test_size_of_one_object_is_limited() -> None:
    reader = OpenAIReader(ChunkDecoder())
    failures = [reader.feed(b'{"' + b"x" * (1 << 20))[1] for _ in range(8)]
    assert failures[:7] == [None] * 7
    assert isinstance(failures[7], UpstreamError)


def test_truncated_call_is_left_out() -> None:
    events, failure = read(frames(chunks("Hi", calls=[said.call("f", '{"a":')], finish="length")))
    assert failure is None
    assert answer(events) == Answer("Hi", "", [], [], Done("length", 7, 3))


ENTRY = {
    "token": "Hi",
    "logprob": -0.5,
    "bytes": [72, 105],
    "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": None}],
}


@pytest.mark.parametrize("name", ["content", "reasoning_content"])
def test_log_probabilities_of_a_chat(name: str) -> None:
    told = chunk({name: "Hi"})
    told["choices"][0]["logprobs"] = {"content": [ENTRY], "refusal": None}
    [event] = ChunkDecoder().decode(told)
    assert isinstance(event, Content | Thinking)
    assert event.logprobs == [ENTRY]


def test_log_probabilities_of_a_completion() -> None:
    logprobs = {
        "tokens": ["H", "i"],
        "token_logprobs": [None, -1.5],
        "top_logprobs": [None, {"i": -1.5}],
        "text_offset": [0, 1],
    }
    [event] = ChunkDecoder().decode(
        {"choices": [{"text": "Hi", "logprobs": logprobs, "finish_reason": None}]}
    )
    expected = [
        {"token": "H", "logprob": 0.0},
        {"token": "i", "logprob": -1.5, "top_logprobs": [{"token": "i", "logprob": -1.5}]},
    ]
    assert event == Content("Hi", expected)


def test_no_log_probabilities() -> None:
    told = chunk({"content": "Hi"})
    told["choices"][0]["logprobs"] = {"content": None}
    assert ChunkDecoder().decode(told) == [Content("Hi")]


def test_thinking_in_the_text() -> None:
    events, failure = read(frames(chunks("<think>hm</think>Hi", size=3)), inline_thinking=True)
    assert failure is None
    assert answer(events) == Answer("Hi", "hm", [], [], DONE)


def test_thinking_in_the_text_that_never_ends() -> None:
    events, _ = read(frames(chunks("<think>hm</thi")), inline_thinking=True)
    assert answer(events) == Answer("", "hm</thi", [], [], DONE)


def test_thinking_before_calls_is_reported() -> None:
    heard: list[Any] = []
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    documents = [
        chunk({"reasoning_details": details}),
        *chunks("", thinking="hm, so", calls=[SAID_CALL]),
    ]
    read(frames(documents), on_tool_calls=lambda *told: heard.append(told))
    assert heard == [([CALL], Thought("hm, so", details))]


def test_thinking_without_calls_is_not_reported() -> None:
    heard: list[Any] = []
    read(frames(chunks("Hi", thinking="hm")), on_tool_calls=lambda *told: heard.append(told))
    assert heard == []


@pytest.mark.parametrize(("finish", "times"), [("content_filter", 1), ("stop", 0)])
def test_filtered_answer_is_counted(finish: str, times: int) -> None:
    noticed: list[bool] = []
    read(frames(chunks("Hi", finish=finish)), on_filtered=lambda: noticed.append(True))
    assert len(noticed) == times


def test_an_error_is_what_the_upstream_makes_of_it() -> None:
    refusal = UpstreamRefused(404, "gone")
    assert read(frames([said.error("no")]), decode_error=lambda document: refusal) == ([], refusal)


@pytest.mark.parametrize(
    "document",
    [
        {"data": [{"id": "m"}]},
        {"models": [{"name": "m"}]},
        {"data": None, "models": [{"model": "m"}]},
        [{"id": "m"}],
    ],
)
def test_shapes(document: Any) -> None:
    [model] = decode_models(document, "box")
    assert (model.name, model.owned_by, model.capabilities, model.context_length) == (
        "m",
        "box",
        None,
        None,
    )


def test_rows_without_a_name_are_left_out() -> None:
    assert decode_models([{"id": 5}, "m", {}], "box") == []


def test_list_of_another_gateway_has_all_that_is_known() -> None:
    sent = Model("m", 7, "box", frozenset({"completion", "tools"}), 8192, embedding_length=64)
    assert decode_models(render_models([sent]), "box") == [sent]


@pytest.mark.parametrize(
    "row", [{"context_length": 8}, {"max_model_len": 8}, {"meta": {"n_ctx_train": 8}}]
)
def test_context(row: dict[str, Any]) -> None:
    [model] = decode_models([{"id": "m"} | row], "box")
    assert model.context_length == 8


def test_capabilities() -> None:
    row = {
        "supported_parameters": ["tools", "reasoning"],
        "architecture": {"input_modalities": ["text", "image"]},
    }
    [chat, vectors] = decode_models([{"id": "m"} | row, {"id": "e", "type": "embedding"}], "box")
    assert chat.capabilities == {"completion", "tools", "thinking", "vision"}
    assert vectors.capabilities == {"embedding"}


@pytest.mark.parametrize("document", [None, {}, "m", {"data": {}}])
def test_another_shape(document: Any) -> None:
    with pytest.raises(UpstreamError):
        decode_models(document, "box")
