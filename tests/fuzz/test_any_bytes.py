"""Whatever a server sends: events, or one of the gateway's own errors, in little time
and with little memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
import pytest
from gevent import socket as gsocket
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.dialects.anthropic.render import MessageRenderer
from ollama_proxy.dialects.native.render import ChatRenderer as NativeChat
from ollama_proxy.dialects.openai.render import ChatRenderer
from ollama_proxy.dialects.responses.output_items import ResponseShape
from ollama_proxy.dialects.responses.render import ResponseRenderer
from ollama_proxy.errors import GatewayError, UpstreamError
from ollama_proxy.gateway.passthrough.edits import AnswerEdits
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import Content, Done, Event, Thinking, ToolCall, collect
from ollama_proxy.settings.schema import Timeouts
from ollama_proxy.upstreams.answer_events import Reader
from ollama_proxy.upstreams.anthropic.errors import decode_refusal as refused_by_anthropic
from ollama_proxy.upstreams.anthropic.events import MessageReader
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama.codec import ChatDecoder, decode_generate
from ollama_proxy.upstreams.ollama.upstream import OllamaReader
from ollama_proxy.upstreams.ollama.versions import decode_refusal as refused_by_ollama
from ollama_proxy.upstreams.openai.answers import ChunkDecoder, OpenAIReader, decode_models
from ollama_proxy.upstreams.openai.errors import decode_refusal as refused_by_openai
from ollama_proxy.upstreams.openai.requests import decode_embed
from ollama_proxy.upstreams.transport.connection import Connection, WaitTimer
from ollama_proxy.wire.lines import LineSplitter, SseSplitter, StreamTail
from ollama_proxy.wire.sse_passthrough import EventCutter, EventTail
from tests.fuzz.strategies import documents
from tests.rig.tables import each_row

READERS: dict[str, Callable[[], Reader]] = {
    "ollama chat": lambda: OllamaReader(ChatDecoder()),
    "ollama generate": lambda: OllamaReader(decode_generate),
    "openai": lambda: OpenAIReader(
        ChunkDecoder(inline_thinking=True, on_tool_calls=lambda *_: None)
    ),
    "anthropic": lambda: MessageReader("m", Thoughts()),
}
EVERY_READER = pytest.mark.parametrize("kind", READERS)

#: The words of answers, of all three APIs.
WORDS = (
    "arguments bytes choices code completion_tokens content content_block data delta done "
    "done_reason embedding error eval_count finish_reason function function_call id index input "
    "logprob logprobs message model name object partial_json prompt_eval_count prompt_tokens "
    "reasoning reasoning_content reasoning_details refusal response role signature stop_reason "
    "text thinking token token_logprobs tokens tool_calls top_logprobs type usage x_groq"
).split()
VALUES = (
    *(
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_start",
        "message_delta",
    ),
    *(
        "message_stop",
        "text_delta",
        "thinking_delta",
        "input_json_delta",
        "signature_delta",
        "tool_use",
        "text",
    ),
    *(
        "thinking",
        "error",
        "stop",
        "length",
        "abort",
        "null",
        "end_turn",
        "{}",
        '{"a":',
        "[]",
        "f",
        "call_1",
    ),
    *(0, 1, -1, 2**63, 1e300, True, False, None, "", [], {}),
)
ANSWERS = documents(WORDS, VALUES, leaves=10)


def framed(document: Any, kind: str) -> bytes:
    data = orjson.dumps(document)
    return data + b"\n" if kind.startswith("ollama") else b"data: " + data + b"\n\n"


def read_all(reader: Reader, pieces: Sequence[bytes]) -> list[Event]:
    """The events of an answer up to what ends it. Anything but a failure that is handed out, or
    raised by `whole`, is a fault."""
    events: list[Event] = []
    for piece in pieces:
        new, failure = reader.feed(piece)
        events += new
        if failure is not None or (new and isinstance(new[-1], Done)):
            return events
    new, failure = reader.end()
    return events + new


def whole(reader: Reader, body: bytes) -> list[Event]:
    try:
        return reader.whole(body)
    except UpstreamError:
        return []


RENDERERS: tuple[Callable[[], Renderer], ...] = (
    lambda: NativeChat("m", 0.0),
    lambda: ChatRenderer("m", include_usage=True),
    lambda: ResponseRenderer("m", {"tools": []}, ResponseShape(sealed=True)),
    lambda: MessageRenderer("m"),
)


def check_events(events: Sequence[Event]) -> None:
    """What was read can be drawn in every dialect, and nothing follows the end."""
    assert not any(isinstance(event, Done) for event in events[:-1])
    for event in events:
        match event:
            case Content(text) | Thinking(text):
                text.encode()
            case ToolCall(call_id, name, arguments):
                assert call_id and isinstance(name, str) and isinstance(arguments, dict)
            case Done(reason, read, written):
                assert isinstance(reason, str) and read >= 0 and written >= 0
    for make in RENDERERS:
        make().render_stream(events)
        if events and isinstance(events[-1], Done):
            make().render_single(collect(events))


@EVERY_READER
@given(pieces=st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_are_read_or_refused(kind: str, pieces: list[bytes]) -> None:
    check_events(read_all(READERS[kind](), pieces))
    check_events(whole(READERS[kind](), b"".join(pieces)))


@EVERY_READER
@given(answer=st.lists(ANSWERS, max_size=3))
def test_any_documents_are_read_or_refused(kind: str, answer: list[dict[str, Any]]) -> None:
    check_events(read_all(READERS[kind](), [framed(document, kind) for document in answer]))
    for document in answer[:1]:
        check_events(whole(READERS[kind](), orjson.dumps(document)))


#: Documents that are nearly right: the shape of each API with one place filled by anything.
def shaped(kind: str, value: Any) -> list[dict[str, Any]]:
    """Every place of an answer, each with this value in it."""
    done = {
        "done": True,
        "done_reason": value,
        "prompt_eval_count": value,
        "eval_count": value,
        "logprobs": value,
    }
    call = {
        "id": value,
        "index": value,
        "type": value,
        "function": {"name": value, "arguments": value},
    }
    shapes: dict[str, list[dict[str, Any]]] = {
        "ollama chat": [
            {"message": {name: value}} for name in ("content", "thinking", "tool_calls")
        ]
        + [{"message": {"tool_calls": [call]}}, {"message": value, **done}, {"error": value}],
        "ollama generate": [
            {"response": value},
            {"thinking": value, "response": "a", "logprobs": value},
            done,
        ],
        "openai": [
            {"choices": [{"delta": {name: value}, "logprobs": value}]}
            for name in (
                "content",
                "reasoning",
                "reasoning_content",
                "refusal",
                "tool_calls",
                "function_call",
            )
        ]
        + [{"choices": [{"delta": {"tool_calls": [call], "reasoning_details": value}}]}]
        + [{"choices": [{"delta": {"function_call": call["function"]}, "finish_reason": "stop"}]}]
        + [
            {
                "choices": [{"delta": {}, "finish_reason": value, "usage": value}],
                "x_groq": value,
                "usage": value,
            }
        ]
        + [
            {"choices": value},
            {"choices": [value]},
            {"error": value},
            {"choices": [{"error": value}]},
        ]
        + [
            {
                "choices": [
                    {
                        "text": "a",
                        "logprobs": {
                            "tokens": value,
                            "token_logprobs": value,
                            "top_logprobs": value,
                        },
                    }
                ]
            }
        ],
        "anthropic": [
            {
                "type": "content_block_start",
                "content_block": {"type": kind_, "id": value, "name": value, "input": value},
            }
            for kind_ in ("text", "thinking", "tool_use", "redacted_thinking", value)
        ]
        + [
            {"type": "content_block_delta", "delta": {"type": f"{name}_delta", key: value}}
            for name, key in [
                ("text", "text"),
                ("thinking", "thinking"),
                ("signature", "signature"),
            ]
            + [("input_json", "partial_json")]
        ]
        + [{"type": "content_block_stop"}, {"type": "message_start", "message": {"usage": value}}]
        + [
            {
                "type": "message_delta",
                "delta": {"stop_reason": value},
                "usage": {"output_tokens": value},
            }
        ]
        + [{"type": "error", "error": value}, {"type": "message_stop"}],
    }
    return shapes[kind]


@EVERY_READER
@given(value=st.one_of(st.sampled_from(VALUES), ANSWERS, st.lists(ANSWERS, max_size=2)))
def test_any_value_in_any_place_is_read_or_refused(kind: str, value: Any) -> None:
    for document in shaped(kind, value):
        check_events(read_all(READERS[kind](), [framed(document, kind)]))
    check_events(
        read_all(READERS[kind](), [framed(document, kind) for document in shaped(kind, value)])
    )
    check_events(
        whole(
            READERS[kind](),
            orjson.dumps({"content": [{"type": "text", "text": value}], "stop_reason": "a"}),
        )
    )


@given(st.one_of(st.binary(max_size=80), ANSWERS.map(orjson.dumps)), st.integers(300, 599))
def test_any_refusal_is_an_error_of_the_gateway(body: bytes, status: int) -> None:
    for error in (
        refused_by_ollama(status, body),
        refused_by_openai(status, body),
        refused_by_anthropic(status, body, None, "m"),
    ):
        assert isinstance(error, UpstreamError) and 400 <= error.status < 600 and str(error)


@given(ANSWERS)
def test_any_list_is_read_or_refused(document: dict[str, Any]) -> None:
    for read in (lambda: decode_models(document, "o"), lambda: decode_embed(document, 1)):
        try:
            read()
        except UpstreamError:
            pass


def pass_through(pieces: Iterable[bytes]) -> EventTail:
    """What the gateway does with an answer that passes; returns what it knows of the end."""
    cutter, tail = EventCutter(), EventTail()
    edits, lines = AnswerEdits(name="n", without_usage=True), StreamTail()
    for piece in pieces:
        edits.events(tail.feed(cutter.feed(piece)))
        lines.feed(piece)
    edits.events(tail.feed(cutter.rest()))
    tail.end()
    lines.end()
    return tail


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), ANSWERS.map(lambda document: framed(document, "openai"))),
        max_size=6,
    )
)
def test_any_bytes_pass_or_end_the_passage(pieces: list[bytes]) -> None:
    tail = pass_through(pieces)
    assert not b"".join(pieces).count(b"\n\n") or tail.estimated_tokens >= 0


# The head of an answer.

HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 204 X\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"\x00",
        b" : \r\n",
    ]
)


@given(st.lists(st.one_of(HEADS, HEADS, st.binary(max_size=20)), max_size=10))
def test_any_bytes_are_an_answer_or_a_failure(pieces: list[bytes]) -> None:
    ours, theirs = gsocket.socketpair()
    connection = Connection(ours, ALARM)
    call = Call(Timeouts(first_byte_s=2, idle_s=2, total_s=5))
    until = time.monotonic() + 2
    try:
        connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", call, chunked=False, headless=False)
        theirs.sendall(b"".join(pieces))
        theirs.close()
        connection.receive_head(call, until, None)
        while connection.receive_body(call, until, None):
            pass
        assert 200 <= connection.status <= 999
    except GatewayError as error:
        assert error.status in (502, 504)
    finally:
        connection.close()
        theirs.close()


#: One for all: its greenlet stays.
ALARM = WaitTimer()


# Time and memory.

MEGABYTE = 1 << 20


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


#: What takes long, or much, where it is not seen in time; each with what it is cut into.
HEAVY: dict[str, tuple[bytes, int]] = {
    "one line without an end, in small pieces": (
        b'{"message":{"content":"' + b"x" * 2 * MEGABYTE,
        1000,
    ),
    "one event without an end, in small pieces": (
        b'data: {"choices":[{"delta":{"content":"' + b"x" * 4 * MEGABYTE,
        1000,
    ),
    "one object without an end, in small pieces": (b'{"choices":"' + b"x" * 2 * MEGABYTE, 1000),
    "comments and nothing else": (b": x\n\n" * (MEGABYTE // 8), 65536),
    "comments in small pieces": (b": x\n\n" * (MEGABYTE // 40), 7),
    "a comment without an end": (b":" + b"x" * 2 * MEGABYTE, 1000),
    "blank lines": (b"\n" * MEGABYTE, 65536),
    "carriage returns": (b"\r" * (MEGABYTE // 2), 1000),
    "data lines of one event": (b"data:x\n" * (MEGABYTE // 8), 65536),
    "deep": (b'data: {"a":' + deep(200_000) + b"}\n\n", 65536),
    "deep lines": (b'{"message":' + deep(200_000) + b"}\n", 65536),
    "deep arguments": (
        b'{"message":{"tool_calls":[{"function":{"arguments":{"a":' + deep(900) + b"}}}]}}\n",
        65536,
    ),
    "a long number": (b'{"eval_count":' + b"9" * MEGABYTE + b',"done":true}\n', 65536),
    "many calls": (
        b"data: "
        b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}}]}\n\n'
        * 10_000,
        65536,
    ),
    "many pieces of one call": (
        b'data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"x"}}\n\n'
        * 10_000,
        65536,
    ),
    "thinking that never ends": (
        b'data: {"choices":[{"delta":{"content":"<think>"}}]}\n\n' * 10_000,
        65536,
    ),
    "blanks before thinking": (
        b'data: {"choices":[{"delta":{"content":" "}}]}\n\n' * 20_000,
        65536,
    ),
}
#: Seconds of the processor for any of them; bytes held for each byte that came (orjson alone sets
#: aside 12), and beside them.
MOST_S, TIMES, BESIDE = 4.0, 16, 4 * MEGABYTE


def swallow(kind: str, pieces: Sequence[bytes]) -> None:
    """Reads an answer as it would be read in a stream: events are handed on at once."""
    reader = READERS[kind]()
    for piece in pieces:
        _, failure = reader.feed(piece)
        if failure is not None:
            return
    reader.end()


@pytest.mark.parametrize("heavy", HEAVY)
@EVERY_READER
def test_heavy_answers_take_little_time_and_memory(kind: str, heavy: str) -> None:
    data, size = HEAVY[heavy]
    pieces = in_pieces(data, size)
    began = time.process_time()
    swallow(kind, pieces)
    assert time.process_time() - began < MOST_S
    assert peak(lambda: swallow(kind, pieces[: 64 * MEGABYTE // size])) < TIMES * len(data) + BESIDE


@each_row("heavy", HEAVY)
def test_heavy_answers_pass_in_little_time_and_memory(heavy: str) -> None:
    data, size = HEAVY[heavy]
    began = time.process_time()
    pass_through(in_pieces(data, size))
    assert time.process_time() - began < MOST_S


@pytest.mark.parametrize("splitter", [LineSplitter, SseSplitter])
def test_what_never_ends_is_given_up(splitter: Any) -> None:
    split = splitter()

    def endless() -> None:
        for _ in range(64):
            split.feed(b"data: " + b"x" * MEGABYTE)

    with pytest.raises(UpstreamError):
        endless()


def peak(work: Callable[[], None]) -> int:
    """The most bytes that were held at once, beyond what there was before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
