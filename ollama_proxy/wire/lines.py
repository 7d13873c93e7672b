"""Bytes to lines to frames and back, without I/O: what every stream of every dialect is made of."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

import orjson

from ollama_proxy.errors import BadRequest, UpstreamError
from ollama_proxy.hub import Usage

#: The stock Go client gives up on lines above 8 MB, so nothing longer can be meant.
MAX_LINE_BYTES = 8 * 1024 * 1024

#: What is kept of a stream that passes through, to read its last line.
TAIL_BYTES = 16 * 1024

#: Blanks and comments in front of an event stream; the last one may still be on its way.
_COMMENTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*+(?::[^\r\n]*+\s*+)*+")

_GOES_ON = re.compile(rb'"done":\s*false')
_COUNTS = re.compile(rb'"(prompt_eval_count|eval_count)":(\d{1,15})(?=[,}])')


class LineSplitter:
    """Cuts bytes into lines on `\\n`, wherever the packets were cut.

    Works on bytes: U+0085 and U+2028 are legal inside JSON strings, and a character may be split over two packets.
    """

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        #: What followed the last line end, in bytes as they came: a long line may come in thousands of pieces.
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends; raises UpstreamError for one over 8 MiB."""
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
        """What followed the last line end; Ollama may leave its last object without one."""
        return b"".join(self._parts)


class SseSplitter:
    """Cuts bytes into the data of server-sent events, wherever the packets were cut; see the HTML standard, section
    9.2.6. What an event is called stands inside its data for every server that matters, so nothing else is kept.
    """

    __slots__ = ("_begun", "_cr", "_data", "_lines", "_size")

    def __init__(self) -> None:
        self._lines = LineSplitter()
        #: The data lines of the event that is not over, and their size.
        self._data: list[bytes] = []
        self._size = 0
        #: The last byte was a line end that a `\n` may still belong to.
        self._cr = False
        self._begun = False

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
        """At the end of the input: the data of an event without its blank line, which browsers would drop."""
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
    """A JSON body made from what a client sent; raises BadRequest for one that can't be written."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        text = "The request can't be forwarded: it is nested too deeply, or a number in it is too large."
        raise BadRequest(text, detail=str(error)[:100]) from None


def ndjson_frame(document: object) -> bytes:
    """One line of a stream."""
    return orjson.dumps(document) + b"\n"


def sse_frame(document: object) -> bytes:
    """One server-sent event; a frame without the blank line behind it would be dropped by every client."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


SSE_COMMENT = b": keep-alive\n\n"
PROMPT_CUT = b": the prompt was too long and has been cut\n\n"

#: Characters that JSON may hold as they are and that many readers of lines take for the end of one.
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def escape_line_separators(frames: bytes) -> bytes:
    """Frames with such characters escaped: inside JSON that means the same, and clients that split the text into lines
    lose nothing."""
    if frames.isascii():
        return frames  # a look costs next to nothing, a search in every token would not
    for raw, escaped in _LINE_ENDS:
        frames = frames.replace(raw, escaped)
    return frames


@dataclass(slots=True)
class StreamEnd:
    """How a passed-through native answer ended."""

    #: A line that ends the stream was seen: `done`, `success` or an error.
    finished: bool
    #: That line was an error.
    failed: bool
    usage: Usage
    #: The answer has met its limit.
    limited: bool = False


@dataclass(slots=True, eq=False)
class StreamTail:
    """Remembers the end of a stream that passes through, never more than 16 KiB of it."""

    _tail: bytes = b""

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Usually they are whole lines, of which the last is there, and nothing is put together;
        blank lines behind it are none."""
        said = data.rstrip(b"\n")
        if said and data.endswith(b"\n") and (self.ends_with_newline or b"\n" in said):
            self._tail = data[-TAIL_BYTES:]
        else:
            self._tail = (self._tail + data)[-TAIL_BYTES:]

    @property
    def ends_with_newline(self) -> bool:
        """Whether what has passed ends with a whole line."""
        return not self._tail or self._tail.endswith(b"\n")

    def end(self) -> StreamEnd:
        """What the last line says. A line too long to be kept whole is read by its numbers alone."""
        line = self._tail.rstrip(b"\n").rpartition(b"\n")[2]
        counts = {name: int(value) for name, value in _COUNTS.findall(line)}
        # Of a line too long to be kept whole, only a whole one counts: metrics stand on the done line alone.
        lost_head = len(self._tail) == TAIL_BYTES and self.ends_with_newline
        failed, finished = False, lost_head and b'"total_duration":' in line
        with contextlib.suppress(orjson.JSONDecodeError):
            document = orjson.loads(line)
            document = document if isinstance(document, dict) else {}
            failed = bool(document.get("error"))
            finished = document.get("done") is True or document.get("status") == "success"
        usage = Usage(counts.get(b"prompt_eval_count"), counts.get(b"eval_count"))
        return StreamEnd(finished or failed, failed, usage, limited=b'"done_reason":"length"' in line)

    def ends_an_answer(self) -> bool:
        """Whether the last line ends what a model said, and not work on models."""
        return b'"done":true' in self._tail and b'load"' not in self._tail

    def is_in_an_answer(self) -> bool:
        """Whether the last whole line is a part of what a model says."""
        return bool(_GOES_ON.search(self._tail.rpartition(b"\n")[0].rpartition(b"\n")[2]))


def without_comments(body: bytes | bytearray) -> bytes:
    """What follows the blank lines and comments of an event stream in front of an answer; nothing while the last
    comment may still go on."""
    return _COMMENTS.sub(b"", body, count=1)
