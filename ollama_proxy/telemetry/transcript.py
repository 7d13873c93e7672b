"""What a model said, read from the bytes that went to the client: off the way of those bytes, and in bounds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from ollama_proxy.hub import Json

#: Bytes of a stream that are kept before they are read, and the largest single answer that is.
PIECE_BYTES, MAX_SINGLE_BYTES = 64 * 1024, 4 << 20

#: Of one answer so many characters are kept, of all its texts; and so many calls of tools.
MAX_CHARS, MAX_CALLS = 1 << 20, 1000

#: What an answer, or a call in it, takes in memory beside its texts, in bytes.
FRAME_BYTES = 600


@dataclass(slots=True)
class _Said:
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    #: By number: the name, and the arguments as pieces of their JSON.
    calls: dict[Any, dict[str, Any]] = field(default_factory=dict)
    finish: str | None = None

    def pieces(self) -> Iterator[list[str]]:
        """Each of its texts."""
        return chain((self.text, self.thinking), (call["pieces"] for call in self.calls.values()))

    def document(self) -> dict[str, Json]:
        calls: list[Json] = []
        for call in self.calls.values():
            text = "".join(call["pieces"])
            try:
                arguments = orjson.loads(text) if text else {}
            except orjson.JSONDecodeError:
                arguments = text
            calls.append({"name": call["name"], "arguments": arguments})
        return {
            "text": "".join(self.text),
            "thinking": "".join(self.thinking),
            "tool_calls": calls,
            "finish": self.finish,
        }


class Transcript:
    """The answers to one request, by index, put together from what a dialect's reader finds."""

    def __init__(self) -> None:
        self._answers: dict[int, _Said] = {}
        self._left = MAX_CHARS
        #: What went wrong, in the words that the client got.
        self.error: str | None = None
        #: Some of it was not kept.
        self.cut = False

    def _answer(self, index: object) -> _Said:
        return self._answers.setdefault(index if isinstance(index, int) else 0, _Said())

    def text(self, text: object, index: object = 0) -> None:
        """More of the answer; anything but a text is nothing."""
        if isinstance(text, str) and text:
            self._answer(index).text.append(self._kept(text))

    def think(self, text: object, index: object = 0) -> None:
        """More of the thinking."""
        if isinstance(text, str) and text:
            self._answer(index).thinking.append(self._kept(text))

    def call(self, number: object, index: object = 0, *, name: object = None, arguments: object = None) -> None:
        """More of a call; arguments are an object, or a piece of its text. `number` None: a call of its own."""
        calls = self._answer(index).calls
        number = len(calls) if number is None else number
        if number not in calls and len(calls) >= MAX_CALLS:
            self.cut = True
            return
        call = calls.setdefault(number, {"name": None, "pieces": []})
        call["name"] = call["name"] or self._kept(str(name or "")) or None
        if isinstance(arguments, str):
            call["pieces"].append(self._kept(arguments))
        elif arguments:
            text = orjson.dumps(arguments).decode()
            self.cut = self.cut or len(text) > self._left
            call["pieces"] = [self._kept(text)] if len(text) <= self._left else [""]  # a part is worth nothing

    def finish(self, reason: object, index: object = 0) -> None:
        """Why it ended, in the dialect's word."""
        if isinstance(reason, str):
            self._answer(index).finish = reason[:40]

    def record_failure(self, error: object) -> None:
        """What the client was told instead of an answer, or in its middle."""
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            self.error = message[:2000]

    def answers(self) -> list[Json]:
        """Each as `text`, `thinking`, `tool_calls` and `finish`."""
        return [self._answers[index].document() for index in sorted(self._answers)]

    def pack(self) -> None:
        """Joins what came in small pieces: each of them takes ten times the room of its letters."""
        for said in self._answers.values():
            for pieces in said.pieces():
                pieces[:] = ["".join(pieces)]

    @property
    def held(self) -> int:
        """Bytes of memory that it takes once it is packed, about."""
        answers = self._answers.values()
        frames = FRAME_BYTES * sum(1 + len(said.calls) for said in answers)
        return frames + sum(sys.getsizeof(text) for said in answers for pieces in said.pieces() for text in pieces)

    def _kept(self, text: str) -> str:
        self.cut = self.cut or len(text) > self._left
        kept = text[: self._left]
        self._left -= len(kept)
        return kept


#: Takes what one JSON document of a dialect's answers says: the whole of a single one, or the next of a stream.
Reader = Callable[[dict[str, Any], Transcript], None]


class TranscriptRecorder:
    """Hears the bytes of an answer; of a stream it holds 64 KiB at most, since they are read from time to time, and
    what was said in them."""

    def __init__(self, reader: Reader, *, is_stream: bool) -> None:
        self._reader = reader
        self._is_stream = is_stream
        self._heard = bytearray()
        self._transcript = Transcript()

    @property
    def held(self) -> int:
        """Bytes of memory that it takes, about: what is not read yet, and what is kept of the rest."""
        return len(self._heard) + self._transcript.held

    def feed(self, data: bytes) -> None:
        """The next bytes; raises nothing, whatever they are."""
        self._heard += data
        if len(self._heard) <= PIECE_BYTES:
            return
        if self._is_stream and b"\n" in data:
            lines, _, self._heard = self._heard.rpartition(b"\n")
            self._read(lines)
        if len(self._heard) > MAX_SINGLE_BYTES:
            self._heard.clear()
            self._transcript.cut = True

    def end(self) -> Transcript:
        """All that was said, once nothing comes any more."""
        self._read(self._heard)
        self._heard = bytearray()
        return self._transcript

    def _read(self, data: bytes | bytearray) -> None:
        for line in data.split(b"\n") if self._is_stream else (data,):
            # The JSON of each line of a stream: that of NDJSON, and the data of server-sent events.
            document = line.removeprefix(b"data:").strip() if self._is_stream else line
            if self._is_stream and not document.startswith(b"{"):
                continue
            try:
                read = orjson.loads(document)
                if isinstance(read, dict):
                    if error := read.get("error"):
                        self._transcript.record_failure(error)
                    self._reader(read, self._transcript)
            except (ValueError, AttributeError, TypeError, KeyError, IndexError):
                continue  # a model server's own idea of an answer: no part of this record, and none of our business
        self._transcript.pack()
