"""However a network cuts an answer, the same is read of it: by those who translate it and by
those who pass it on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.dialects.anthropic.render import MessageRenderer
from ollama_proxy.dialects.native.render import ChatRenderer as NativeChat
from ollama_proxy.dialects.native.render import GenerateRenderer
from ollama_proxy.dialects.openai.render import ChatRenderer
from ollama_proxy.gateway.passthrough.edits import AnswerEdits
from ollama_proxy.hub import Content, Done, Event, Thinking, ToolCall
from ollama_proxy.upstreams.answer_events import Reader
from ollama_proxy.upstreams.anthropic.events import MessageReader
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.ollama.codec import ChatDecoder, decode_generate
from ollama_proxy.upstreams.ollama.upstream import OllamaReader
from ollama_proxy.upstreams.openai.answers import ChunkDecoder, OpenAIReader
from ollama_proxy.upstreams.openai.pieces import InlineThinking
from ollama_proxy.wire.lines import LineSplitter, SseSplitter, StreamTail
from ollama_proxy.wire.sse_passthrough import EventCutter, EventTail, data_of, read, split_events
from tests.fuzz.strategies import AWKWARD, TEXTS, answers, batches, cut, pieces_of

MODEL = "m"

#: By the name of what writes an answer: how it is written, and who reads it.
WRITERS: dict[str, tuple[Callable[[], Any], Callable[[], Reader]]] = {
    "ollama chat": (
        lambda: NativeChat(MODEL, 0.0, lambda: 1.0),
        lambda: OllamaReader(ChatDecoder()),
    ),
    "ollama generate": (
        lambda: GenerateRenderer(MODEL, 0.0, lambda: 1.0),
        lambda: OllamaReader(decode_generate),
    ),
    "openai": (
        lambda: ChatRenderer(MODEL, include_usage=True),
        lambda: OpenAIReader(ChunkDecoder()),
    ),
    "anthropic": (lambda: MessageRenderer(MODEL), lambda: MessageReader(MODEL, Thoughts())),
}
EVERY_WRITER = pytest.mark.parametrize("kind", WRITERS)


def read_in(reader: Reader, pieces: Sequence[bytes]) -> tuple[list[Event], str]:
    """All events of an answer, and the failure that ended it."""
    events: list[Event] = []
    for piece in pieces:
        new, failure = reader.feed(piece)
        events += new
        if failure is not None:
            return events, repr(failure.args)
        if new and isinstance(new[-1], Done):
            return events, ""
    new, failure = reader.end()
    return events + new, "" if failure is None else repr(failure.args)


def joined(events: Sequence[Event]) -> list[Event]:
    """The events with texts that follow each other put together, and calls without the ids
    that a reader made up."""
    told: list[Event] = []
    for event in events:
        last = told[-1] if told else None
        if isinstance(event, Content | Thinking) and type(last) is type(event):
            told[-1] = replace(event, text=last.text + event.text)  # type: ignore[union-attr]  # the same type
        else:
            told.append(replace(event, id="") if isinstance(event, ToolCall) else event)
    return told


def with_calls_last(events: Sequence[Event]) -> list[Event]:
    """As OpenAI's chunks are read: calls are complete only when the answer has finished."""
    calls = [event for event in events if isinstance(event, ToolCall)]
    done = [event for event in events if isinstance(event, Done)]
    return joined([event for event in events if not isinstance(event, ToolCall | Done)]) + joined(
        [*calls, *done]
    )


def with_cache_counts(events: Sequence[Event]) -> list[Event]:
    """As Anthropic's answers are read: their usage always has the counts of the cache."""
    return [
        replace(event, cached=event.cached or 0, cache_written=event.cache_written or 0)
        if isinstance(event, Done)
        else event
        for event in joined(events)
    ]


#: What is the same of an answer when it is written and when it is read; `joined` where
#: nothing else is named.
SAME = {"openai": with_calls_last, "anthropic": with_cache_counts}


@st.composite
def written(draw: st.DrawFn, kind: str, events: Sequence[Event]) -> bytes:
    """An answer as a server may write it: with other line ends and signs of life where
    its format allows them."""
    renderer = WRITERS[kind][0]()
    body = b"".join(renderer.render_stream(part) for part in draw(batches(events)))
    if kind.startswith("ollama"):
        return body.removesuffix(b"\n") if draw(st.booleans()) else body
    body = (
        draw(st.sampled_from([b"", b": hello\n\n", b"\n", b"\xef\xbb\xbf", b"retry: 10\n"])) + body
    )
    body = re.sub(rb"(?m)^data: ", draw(st.sampled_from([b"data: ", b"data:"])), body)
    return body.replace(b"\n", draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))


@EVERY_WRITER
@given(data=st.data())
def test_an_answer_is_read_as_it_was_written(kind: str, data: st.DataObject) -> None:
    events = data.draw(answers(calls=kind != "ollama generate"))
    pieces = data.draw(written(kind, events).flatmap(cut))
    found, failure = read_in(WRITERS[kind][1](), pieces)
    assert failure == ""
    same = SAME.get(kind, joined)
    assert same(found) == same(events)


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """The bytes with pieces taken out, doubled, or replaced by others."""
    for begin, end in draw(pieces_of(len(body)))[:3]:
        new = draw(
            st.one_of(
                st.just(b""),
                st.binary(max_size=4),
                st.sampled_from([text.encode() for text in AWKWARD]),
            )
        )
        body = draw(st.sampled_from([body[:begin] + new + body[end:], body[:end] + body[begin:]]))
    return body


@EVERY_WRITER
@given(data=st.data())
def test_a_damaged_answer_is_read_the_same_however_it_is_cut(
    kind: str, data: st.DataObject
) -> None:
    events = data.draw(answers(calls=kind != "ollama generate"))
    body = data.draw(written(kind, events).flatmap(damaged))
    whole, failure = read_in(WRITERS[kind][1](), [body])
    pieces, failure_in_pieces = read_in(WRITERS[kind][1](), data.draw(cut(body)))
    assert (joined(pieces), failure_in_pieces) == (joined(whole), failure)


@pytest.mark.parametrize("splitter", [LineSplitter, SseSplitter])
@given(data=st.data())
def test_lines_and_frames_are_the_same_however_they_are_cut(
    splitter: Any, data: st.DataObject
) -> None:
    alphabet = st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"data: ", b":", b"\xef\xbb\xbf", b"a", b"\xff"]
    )
    body = b"".join(data.draw(st.lists(alphabet, max_size=20)))
    one, many = splitter(), splitter()
    whole = [*one.feed(body), one.rest()]
    pieces = [line for piece in data.draw(cut(body)) for line in many.feed(piece)]
    assert [*pieces, many.rest()] == whole


@given(
    st.text(st.sampled_from("<think/> \nx"), max_size=40).flatmap(
        lambda text: st.tuples(st.just(text), cut(text.encode()))
    )
)
def test_thinking_between_tags_is_found_however_it_is_cut(drawn: tuple[str, list[bytes]]) -> None:
    text, pieces = drawn
    one, many = InlineThinking(), InlineThinking()
    whole = [*one.events(text), *one.end()]
    found = [event for piece in pieces for event in many.events(piece.decode())] + many.end()
    assert joined(found) == joined(whole)


# What passes through.

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "own"}
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": TEXTS, "reasoning": TEXTS, "refusal": st.none()}
)
REASONS = st.sampled_from([None, None, "stop", "length", "tool_calls"])
CHOICES = st.builds(
    lambda index, delta, reason: {"index": index, "delta": delta, "finish_reason": reason},
    st.integers(0, 2),
    DELTAS,
    REASONS,
)
USAGES = st.sampled_from(
    [{}, {"usage": None}, {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}, {"usage": {}}]
)
CHUNKS = st.builds(
    lambda choices, usage: CHUNK | {"choices": choices} | usage,
    st.lists(CHOICES, max_size=2),
    USAGES,
)
FAILURES = st.sampled_from([{"error": {"message": "no"}}, {"object": "error", "message": "no"}])
DOCUMENTS = st.lists(st.one_of(CHUNKS, CHUNKS, CHUNKS, FAILURES), max_size=8)


@st.composite
def provided(draw: st.DrawFn, documents: Sequence[dict[str, Any]]) -> bytes:
    """The events of a provider, in its way of writing them."""
    space, end = (
        draw(st.sampled_from([b"data: ", b"data:"])),
        draw(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n\r\n"])),
    )
    written_ = [space + orjson.dumps(document) for document in documents]
    written_ += [b"data: [DONE]"] if draw(st.booleans()) else []
    lively = [
        draw(st.sampled_from([b"", b"", b": ping" + end, b"id: 7\n"])) + event + end
        for event in written_
    ]
    body = b"".join(lively)
    return body if draw(st.booleans()) else body.removesuffix(end)


def passed(pieces: Sequence[bytes]) -> list[bytes]:
    """What leaves the cutter, event by event, as far as it carries anything."""
    cutter = EventCutter()
    whole = [cutter.feed(piece) for piece in pieces]
    events = [event for part in [*whole, cutter.rest()] for event in split_events(part)]
    return [data for event in events if (data := data_of(event))]


@given(DOCUMENTS.flatmap(provided).flatmap(lambda body: st.tuples(st.just(body), cut(body))))
def test_events_pass_whole_however_they_are_cut(drawn: tuple[bytes, list[bytes]]) -> None:
    body, pieces = drawn
    assert passed(pieces) == passed([body])


@given(
    DOCUMENTS.flatmap(
        lambda documents: st.tuples(st.just(documents), provided(documents).flatmap(cut))
    )
)
def test_all_that_was_said_passes(drawn: tuple[list[dict[str, Any]], list[bytes]]) -> None:
    documents, pieces = drawn
    assert [read(data) for data in passed(pieces) if data != b"[DONE]"] == documents


def tail_of(pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """What is known at the end of events that have passed."""
    tail, cutter = EventTail(2), EventCutter()
    for piece in pieces:
        tail.feed(cutter.feed(piece))
        if tail.failure is not None:
            return ("failed", tail.failure)
    tail.feed(cutter.rest())
    return tail.end(), tail.done, tail.failure


@given(DOCUMENTS.flatmap(provided).flatmap(lambda body: st.tuples(st.just(body), cut(body))))
def test_the_end_of_events_is_known_however_they_are_cut(drawn: tuple[bytes, list[bytes]]) -> None:
    body, pieces = drawn
    one, many = tail_of([body]), tail_of(pieces)
    assert many == one or {many[0], one[0]} & {"failed"}


def edited(pieces: Sequence[bytes], *, without_usage: bool) -> list[dict[str, Any]]:
    """The objects that a client gets of events that are edited on their way."""
    edits, cutter = AnswerEdits(name="mine", without_usage=without_usage), EventCutter()
    parts = [edits.events(part) for part in [*map(cutter.feed, pieces), cutter.rest()]]
    return [
        read(data)
        for part in parts
        for event in split_events(part)
        if (data := data_of(event)) and data != b"[DONE]"
    ]


@given(
    st.lists(CHUNKS, max_size=6).flatmap(
        lambda chunks: st.tuples(st.just(chunks), provided(chunks).flatmap(cut))
    ),
    st.booleans(),
)
def test_edits_change_the_name_and_the_usage_and_nothing_else(
    drawn: tuple[list[dict[str, Any]], list[bytes]], without_usage: bool
) -> None:
    chunks, pieces = drawn
    expected = [chunk | {"model": "mine"} for chunk in chunks]
    if without_usage:
        expected = [chunk for chunk in expected if chunk["choices"] or not chunk.get("usage")]
        expected = [
            {k: v for k, v in chunk.items() if (k, v) != ("usage", None)} for chunk in expected
        ]
    assert edited(pieces, without_usage=without_usage) == expected


LINES = st.sampled_from(
    [
        b'{"message":{"content":"a"},"done":false}',
        b'{"message":{"content":""},"done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":4}',
        b'{"response":"' + b"x" * 20_000 + b'","done":true,"total_duration":9,"eval_count":7}',
        b'{"error":"no"}',
        b'{"status":"success"}',
        b'{"done"',
        b"",
    ]
)
PASSED_LINES = st.lists(LINES, max_size=5).map(b"\n".join)


@given(
    PASSED_LINES.flatmap(lambda body: st.tuples(st.just(body), st.booleans())).map(
        lambda t: t[0] + b"\n" * t[1]
    ),
    st.data(),
)
def test_the_end_of_lines_is_known_however_they_are_cut(body: bytes, data: st.DataObject) -> None:
    pieces = [body[begin:end] for begin, end in data.draw(pieces_of(len(body)))]
    one, many = StreamTail(), StreamTail()
    one.feed(body)
    for piece in pieces:
        many.feed(piece)
    assert (many.end(), many.ends_with_newline) == (one.end(), one.ends_with_newline)
