"""Server-sent events to their data, whatever the packets and the line ends looked like."""

from __future__ import annotations

import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.wire.lines import MAX_LINE_BYTES, SseSplitter
from tests.rig import every_cut
from tests.rig.tables import each_row

CASES = {
    "plain": (b'data: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}', b"[DONE]"]),
    "no blank behind the colon": (b"data:1\n\ndata:  2\n\n", [b"1", b" 2"]),
    "carriage returns": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
    "lone carriage returns": (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
    "mixed line ends": (b"data: 1\r\ndata: 2\n\r\ndata: 3\r\n\n", [b"1\n2", b"3"]),
    "several data lines": (b"data: a\ndata: b\ndata:\n\n", [b"a\nb\n"]),
    "comments": (b": hi\n\n: keep-alive\n\ndata: 1\n: in between\n\n", [b"1"]),
    "names and ids": (b"event: message\nid: 7\nretry: 10\ndata: 1\n\nevent: end\n\n", [b"1"]),
    "blank lines": (b"\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n", [b"1", b"2"]),
    "byte order mark": (b"\xef\xbb\xbfdata: 1\n\n", [b"1"]),
    "other line ends inside": (
        'data: "x\u2028y\u0085世🎉"\n\n'.encode(),
        ['"x\u2028y\u0085世🎉"'.encode()],
    ),
    "a field of another name": (b"database: 1\n\ndata: 2\n\n", [b"2"]),
}


def split(parts: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The events of bytes that arrive in these pieces, and what their end adds."""
    splitter = SseSplitter()
    events = [event for part in parts for event in splitter.feed(part)]
    return events, splitter.rest()


@each_row(("body", "expected"), CASES.values())
def test_events_are_the_same_wherever_the_bytes_are_cut(body: bytes, expected: list[bytes]) -> None:
    assert split([body]) == (expected, [])
    for parts in every_cut(body):
        assert split(parts) == (expected, []), parts


@pytest.mark.parametrize("end", [b"data: 2", b"data: 2\n", b"data: 2\r\n", b"data: 2\r"])
def test_last_event_counts_without_its_blank_line(end: bytes) -> None:
    for parts in every_cut(b"data: 1\n\n" + end):
        assert split(parts) == ([b"1"], [b"2"]), parts


def test_an_event_is_there_as_soon_as_its_end_is() -> None:
    splitter = SseSplitter()
    assert splitter.feed(b"data: 1\r\n\r") == [b"1"]
    assert splitter.feed(b"\ndata: 2\n") == []
    assert splitter.feed(b"\n") == [b"2"]


@pytest.mark.parametrize("line_ends", [b"", b"\n"], ids=["one line", "many lines"])
def test_memory_has_a_limit(line_ends: bytes) -> None:
    splitter = SseSplitter()
    part = b"data:" + b"x" * (MAX_LINE_BYTES // 8) + line_ends
    with pytest.raises(UpstreamError):
        for _ in range(9):
            splitter.feed(part)
