"""Splits bytes into lines and events, and encodes frames; the basis of every stream. No I/O."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from ollama_proxy.errors import BadRequest, UpstreamError
from ollama_proxy.hub import Usage

#: The limit of Ollama's own Go client, in bytes.
MAX_LINE_BYTES = 8 * 1024 * 1024

#: How much of the end of a passed-through stream is kept, to read its last line, in bytes.
TAIL_BYTES = 16 * 1024

#: Blank lines and comments at the start of an event stream; the last one may be incomplete.
_COMMENTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*+(?::[^\r\n]*+\s*+)*+")

_GOES_ON = re.compile(rb'"done":\s*false')
_METRICS = re.compile(
    rb'"(prompt_eval_count|eval_count|(?:total|load|prompt_eval|eval)_duration)":(\d{1,15})(?=[,}])'
)


@dataclass(slots=True, eq=False)
class LineSplitter:
    """Splits bytes into lines at `\\n`, however the packets were cut.

    It works on bytes, because U+0085 and U+2028 are legal inside JSON strings, and because a
    character may be split over two packets.
    """

    #: The pieces of the incomplete last line, unjoined, because there may be thousands of
    #: them; and their size.
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends; raises
        UpstreamError for one over 8 MiB."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
        if lines:
            self._parts, self._size = [], 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE_BYTES:
                raise UpstreamError("The model server sent a line that is too long.")
        return lines

    def rest(self) -> bytes:
        """The bytes after the last line end; Ollama may omit that of its last object."""
        return b"".join(self._parts)


@dataclass(slots=True, eq=False)
class SseSplitter:
    """Splits bytes into the data of server-sent events, however the packets were cut; see
    the HTML standard, section
    9.2.6. Other fields are dropped: all supported servers repeat the name of an event in its data.
    """

    _lines: LineSplitter = field(default_factory=LineSplitter)
    #: The data lines of the incomplete event, and their size.
    _data: list[bytes] = field(default_factory=list)
    _size: int = 0
    #: The last byte was a carriage return, so a `\n` that follows belongs to it.
    _cr: bool = False
    _begun: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are complete now; raises UpstreamError for one over 8 MiB."""
        if self._cr or b"\r" in data:
            if self._cr and data:
                data = data.removeprefix(b"\n")
                self._cr = False
            if data:
                self._cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._events(self._lines.feed(data))

    def rest(self) -> list[bytes]:
        """At the end of the input: the data of an event without a final blank line,
        which browsers would drop."""
        return self._events([self._lines.rest(), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        if not self._begun and lines:
            self._begun = True
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        for line in lines:
            if line[:5] == b"data:":
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._size += len(line)
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data, self._size = [], 0
        if self._size > MAX_LINE_BYTES:
            raise UpstreamError("The model server sent an event that is too long.")
        return events


def encode_request(document: object) -> bytes:
    """A JSON body for an upstream; raises BadRequest if a client sent values
    that can't be encoded."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        text = (
            "The request can't be forwarded: it is nested too deeply, or a "
            "number in it is too large."
        )
        raise BadRequest(text, detail=str(error)[:100]) from None


def ndjson_frame(document: object) -> bytes:
    """One line of a stream."""
    return orjson.dumps(document) + b"\n"


def sse_frame(document: object) -> bytes:
    """One server-sent event, with the blank line that clients require."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


SSE_COMMENT = b": keep-alive\n\n"


def sse_comment(text: str) -> bytes:
    """A comment in a stream of server-sent events; one that says nothing for the text ""."""
    return b": %b\n\n" % "".join(filter(str.isprintable, text)).encode() if text else SSE_COMMENT


PROMPT_CUT = b": the prompt was too long and has been cut\n\n"
APPROXIMATED = b": the answer does not follow %b strictly\n\n"

#: Characters that are legal in JSON, and that many clients take for the end of a line.
_LINE_ENDS = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def escape_line_separators(frames: bytes) -> bytes:
    """Frames with such characters escaped, which is the same JSON, but safe for clients that
    split text into lines."""
    if frames.isascii():
        return frames  # much faster than three searches
    for raw, escaped in _LINE_ENDS:
        frames = frames.replace(raw, escaped)
    return frames


@dataclass(slots=True)
class StreamEnd:
    """How a passed-through native answer ended."""

    #: The last line ended the stream: `done`, `success` or an error.
    finished: bool
    #: It was an error.
    failed: bool
    usage: Usage
    #: The answer reached its token limit.
    limited: bool = False
    #: The counts, and the durations in nanoseconds, by Ollama's names.
    metrics: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)


@dataclass(slots=True, eq=False)
class StreamTail:
    """Keeps the end of a passed-through stream, at most 16 KiB."""

    _tail: bytes = b""

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Usually they are whole lines, so nothing has to be joined; blank
        lines at the end are ignored."""
        lines = data.rstrip(b"\n")
        if lines and data.endswith(b"\n") and (self.ends_with_newline or b"\n" in lines):
            self._tail = data[-TAIL_BYTES:]
        else:
            self._tail = (self._tail + data)[-TAIL_BYTES:]

    @property
    def ends_with_newline(self) -> bool:
        """Whether the stream so far ends with a complete line."""
        return not self._tail or self._tail.endswith(b"\n")

    def end(self) -> StreamEnd:
        """The end of the stream, from its last line. Of a line longer than the limit,
        only the counts are read."""
        line = self._tail.rstrip(b"\n").rpartition(b"\n")[2]
        metrics = {name.decode(): int(value) for name, value in _METRICS.findall(line)}
        # A line longer than the limit must be complete, and only the `done` line has metrics.
        lost_head = len(self._tail) == TAIL_BYTES and self.ends_with_newline
        failed, finished = False, lost_head and b'"total_duration":' in line
        with contextlib.suppress(orjson.JSONDecodeError):
            document = orjson.loads(line)
            document = document if isinstance(document, dict) else {}
            failed = bool(document.get("error"))
            finished = document.get("done") is True or document.get("status") == "success"
        usage = Usage(metrics.get("prompt_eval_count"), metrics.get("eval_count"))
        is_limited = b'"done_reason":"length"' in line
        return StreamEnd(finished or failed, failed, usage, limited=is_limited, metrics=metrics)

    def is_an_answer(self) -> bool:
        """Whether the stream is the answer of a model, not the loading or downloading of one: its
        last line ends one, or its last complete line is a part of one."""
        if b'"done":true' in self._tail and b'load"' not in self._tail:
            return True
        return bool(_GOES_ON.search(self._tail.rpartition(b"\n")[0].rpartition(b"\n")[2]))


def without_comments(body: bytes | bytearray) -> bytes:
    """An event stream without the blank lines and comments at its start; empty while the last
    comment may be incomplete."""
    return _COMMENTS.sub(b"", body, count=1)
