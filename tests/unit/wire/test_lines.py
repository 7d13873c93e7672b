"""Bytes to lines to frames, whatever the packets looked like."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import NO_USAGE, Usage
from ollama_proxy.wire.lines import (
    MAX_LINE_BYTES,
    SSE_COMMENT,
    TAIL_BYTES,
    LineSplitter,
    StreamEnd,
    StreamTail,
    escape_line_separators,
    ndjson_frame,
    sse_comment,
    sse_frame,
)
from tests.rig import every_cut, pieces
from tests.rig.tables import each_row

LINES = ['{"a":"Grüße, 世界 🎉"}', '{"b":"x\u2028y\u0085z"}', "", '{"c":"\\n"}']
BODY = "".join(line + "\n" for line in LINES).encode()


def split(parts: list[bytes]) -> tuple[list[str], bytes]:
    """The lines of bytes that arrive in these pieces, and what is left."""
    splitter = LineSplitter()
    lines = [line.decode() for part in parts for line in splitter.feed(part)]
    return lines, splitter.rest()


@pytest.mark.parametrize("rest", [b"", b'{"d"'], ids=["whole", "unfinished"])
def test_lines_are_the_same_wherever_the_bytes_are_cut(rest: bytes) -> None:
    assert split([BODY + rest]) == (LINES, rest)
    for parts in every_cut(BODY + rest):
        assert split(parts) == (LINES, rest), parts


def test_no_bytes_are_no_line() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"") == []
    assert splitter.rest() == b""


def test_unicode_line_separators_are_escaped_in_frames() -> None:
    text = "one\u2028two\u2029three\u0085Grüße 世界 🎉"
    frame = escape_line_separators(ndjson_frame({"text": text}))
    assert frame.decode() == '{"text":"one\\u2028two\\u2029three\\u0085Grüße 世界 🎉"}\n'
    assert json.loads(frame) == {"text": text}


def test_longest_line_passes_and_a_longer_one_does_not() -> None:
    splitter = LineSplitter()
    line = b"x" * MAX_LINE_BYTES
    assert splitter.feed(line) == []
    assert splitter.feed(b"\n") == [line]
    splitter.feed(line)
    with pytest.raises(UpstreamError):
        splitter.feed(b"x")


@pytest.mark.parametrize("document", [{"a": "世🎉"}, {"a": "x\ny\u2028z"}, [], {}])
def test_frames_hold_one_line_of_json(document: object) -> None:
    line = ndjson_frame(document)
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert json.loads(line) == document
    event = sse_frame(document)
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
    assert json.loads(event[6:]) == document


@pytest.mark.parametrize("text", ["", "waiting", "loading m\n\ndata: x on\u2028box\r"])
def test_comment_is_an_event_of_its_own(text: str) -> None:
    comment = sse_comment(text).decode()
    assert comment.startswith(": ") and comment.endswith("\n\n") and len(comment.splitlines()) == 2


def test_comment_says_what_it_is_told() -> None:
    assert (sse_comment("waiting"), sse_comment("")) == (b": waiting\n\n", SSE_COMMENT)


DONE = b'{"done":true,"done_reason":"stop","total_duration":9,"prompt_eval_count":7,"eval_count":3}'
LINE = b'{"message":{"content":"a"},"done":false}\n'


@each_row(
    ("body", "expected"),
    [
        (LINE + DONE + b"\n", StreamEnd(True, False, Usage(7, 3))),
        (LINE + DONE, StreamEnd(True, False, Usage(7, 3))),
        (DONE, StreamEnd(True, False, Usage(7, 3))),
        (LINE, StreamEnd(False, False, NO_USAGE)),
        (
            b'{"done":true,"done_reason":"length","eval_count":3}\n',
            StreamEnd(True, False, Usage(None, 3), limited=True),
        ),
        (LINE + b'{"error":"boom"}\n', StreamEnd(True, True, NO_USAGE)),
        (b'{"status":"pulling"}\n{"status":"success"}\n', StreamEnd(True, False, NO_USAGE)),
        (b'{"status":"pulling"}\n', StreamEnd(False, False, NO_USAGE)),
        (LINE + b'{"message":{"content":"cut', StreamEnd(False, False, NO_USAGE)),
        (LINE + b'{"done":true}\n', StreamEnd(True, False, NO_USAGE)),
        (LINE + b'{"done":"true"}\n', StreamEnd(False, False, NO_USAGE)),
        (LINE + b"[1]\n", StreamEnd(False, False, NO_USAGE)),
        (b"", StreamEnd(False, False, NO_USAGE)),
        (LINE + b"\n\n", StreamEnd(False, False, NO_USAGE)),
    ],
)
def test_end_of_a_stream(body: bytes, expected: StreamEnd) -> None:
    assert tail_of([body]).end() == expected
    for parts in every_cut(body):
        assert tail_of(parts).end() == expected, parts


def test_end_of_a_stream_has_what_the_server_measured() -> None:
    line = b'{"load_duration":5,"prompt_eval_duration":6,"eval_duration":7,"eval_count":3,"total_duration":20}\n'
    measured = {"load_duration": 5, "prompt_eval_duration": 6, "eval_duration": 7, "eval_count": 3}
    measured["total_duration"] = 20
    assert tail_of(pieces(line, 7)).end().metrics == measured


def tail_of(parts: list[bytes]) -> StreamTail:
    tail = StreamTail()
    for part in parts:
        tail.feed(part)
    return tail


@pytest.mark.parametrize("size", (4096, 65536))
def test_done_line_longer_than_the_window_still_counts(size: int) -> None:
    """The `context` of a completion stands before the metrics and may be long."""
    context = ",".join(["12345"] * TAIL_BYTES)
    metrics = '"total_duration":9,"prompt_eval_count":7,"eval_count":3'
    line = f'{{"response":"","done":true,"context":[{context}],{metrics}}}\n'
    assert tail_of(pieces(LINE + line.encode(), size)).end() == StreamEnd(True, False, Usage(7, 3))


def test_numbers_inside_a_text_are_not_counted() -> None:
    text = json.dumps({"message": {"content": '"eval_count":99,'}, "done": False}).encode() + b"\n"
    assert tail_of(pieces(text + b'{"done":true,"eval_count":3}\n', 7)).end() == StreamEnd(
        True, False, Usage(None, 3)
    )


@each_row("value", ["-1", '"7"', "1e300", "7.5", "null", "9" * 40])
def test_counts_that_are_none_are_unknown(value: str) -> None:
    """U23"""
    body = f'{{"done":true,"eval_count":{value},"x":1}}\n'.encode()
    assert tail_of([body]).end().usage.completion is None


@pytest.mark.parametrize(("body", "expected"), [(LINE, True), (LINE[:-1], False), (b"", True)])
def test_whether_a_line_is_open(body: bytes, expected: bool) -> None:
    assert tail_of(pieces(body, 7)).ends_with_newline is expected


def test_memory_stays_small() -> None:
    tail = StreamTail()
    for _ in range(100):
        tail.feed(b"x" * 65536)
    assert len(tail._tail) <= TAIL_BYTES


def test_a_done_line_that_was_torn_is_no_end() -> None:
    tail = StreamTail()
    tail.feed(b'{"response":"Hi","done":false}\n')
    tail.feed(b'{"response":"","done":true,"total_duration":5,"eval_cou')
    assert not tail.end().finished


def test_a_done_line_too_long_to_be_kept_is_known_by_its_metrics() -> None:
    context = b",".join([b"12345"] * 10_000)
    line = (
        b'{"done":true,"context":['
        + context
        + b'],"total_duration":5,"prompt_eval_count":7,"eval_count":3}\n'
    )
    tail = StreamTail()
    for start in range(0, len(line), 1000):
        tail.feed(line[start : start + 1000])
    end = tail.end()
    assert (end.finished, end.usage) == (True, Usage(7, 3))


def test_a_long_done_line_that_was_torn_is_no_end() -> None:
    line = b'{"done":true,"context":[' + b"12345," * 10_000 + b'0],"total_duration":5,"eval_cou'
    tail = StreamTail()
    tail.feed(line)
    assert not tail.end().finished
