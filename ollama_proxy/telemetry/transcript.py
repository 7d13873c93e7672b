"""The answers of a model, parsed from the bytes that were sent to the client,
within limits of memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from ollama_proxy.hub import Json

#: Bytes of a stream that are collected before they are parsed, and the largest single
#: answer that is parsed.
PIECE_BYTES, MAX_SINGLE_BYTES = 64 * 1024, 4 << 20

#: Most characters that are kept of all texts of an answer, and most tool calls.
MAX_CHARS, MAX_CALLS = 1 << 20, 1000

#: Memory of an answer, or of a call in it, without its texts, in bytes.
FRAME_BYTES = 600


@dataclass(slots=True)
class _Answer:
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    #: The name and the pieces of the JSON of the arguments, by the number of the call.
    calls: dict[Any, dict[str, Any]] = field(default_factory=dict)
    finish: str | None = None

    def texts(self) -> Iterator[list[str]]:
        """The pieces of each of its texts."""
        return chain((self.text, self.thinking), (call["pieces"] for call in self.calls.values()))


@dataclass(slots=True)
class Transcript:
    """The answers to one request, by index; the reader of a dialect adds to them."""

    _answers: dict[int, _Answer] = field(default_factory=dict)
    _left: int = MAX_CHARS
    #: The error message that the client received.
    error: str | None = None
    #: Something was left out.
    cut: bool = False

    def _find(self, index: object) -> _Answer:
        return self._answers.setdefault(index if isinstance(index, int) else 0, _Answer())

    def text(self, text: object, index: object = 0) -> None:
        """Adds text to an answer; anything but a string is ignored."""
        if isinstance(text, str) and text:
            self._find(index).text.append(self._cut(text))

    def think(self, text: object, index: object = 0) -> None:
        """Adds thinking; anything but a string is ignored."""
        if isinstance(text, str) and text:
            self._find(index).thinking.append(self._cut(text))

    def call(
        self, number: object, index: object = 0, *, name: object = None, arguments: object = None
    ) -> None:
        """Adds to a tool call; `arguments`: an object, or a piece of its JSON.
        `number` None: a new call."""
        calls = self._find(index).calls
        number = len(calls) if number is None else number
        if number not in calls and len(calls) >= MAX_CALLS:
            self.cut = True
            return
        call = calls.setdefault(number, {"name": None, "pieces": []})
        call["name"] = call["name"] or self._cut(str(name or "")) or None
        if isinstance(arguments, str):
            call["pieces"].append(self._cut(arguments))
        elif arguments:
            text = orjson.dumps(arguments).decode()
            self.cut = self.cut or len(text) > self._left
            # A part would be invalid JSON.
            call["pieces"] = [self._cut(text)] if len(text) <= self._left else [""]

    def finish(self, reason: object, index: object = 0) -> None:
        """Sets why an answer ended, as the dialect calls it."""
        if isinstance(reason, str):
            self._find(index).finish = reason[:40]

    def record_failure(self, error: object) -> None:
        """Keeps the message of an error that the client received instead of
        an answer or within it."""
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            self.error = message[:2000]

    def answers(self) -> list[Json]:
        """Each as `text`, `thinking`, `tool_calls` and `finish`."""
        documents: list[Json] = []
        for _, answer in sorted(self._answers.items()):
            calls: list[Json] = []
            for call in answer.calls.values():
                arguments = "".join(call["pieces"])
                with suppress(orjson.JSONDecodeError):
                    arguments = orjson.loads(arguments or "{}")
                calls.append({"name": call["name"], "arguments": arguments})
            texts = {"text": "".join(answer.text), "thinking": "".join(answer.thinking)}
            documents.append({**texts, "tool_calls": calls, "finish": answer.finish})
        return documents

    def pack(self) -> None:
        """Joins the pieces of each text: a small string takes ten times the
        memory of its characters."""
        for answer in self._answers.values():
            for pieces in answer.texts():
                pieces[:] = ["".join(pieces)]

    @property
    def held(self) -> int:
        """About how many bytes of memory it takes when it is packed."""
        answers = self._answers.values()
        frames = FRAME_BYTES * sum(1 + len(answer.calls) for answer in answers)
        return frames + sum(
            sys.getsizeof(text)
            for answer in answers
            for pieces in answer.texts()
            for text in pieces
        )

    def _cut(self, text: str) -> str:
        self.cut = self.cut or len(text) > self._left
        kept = text[: self._left]
        self._left -= len(kept)
        return kept


#: Adds the content of one JSON document to the transcript: a single answer, or
#: one event of a stream.
Reader = Callable[[dict[str, Any], Transcript], None]


@dataclass(slots=True)
class TranscriptRecorder:
    """Collects the bytes of an answer. Those of a stream are parsed every 64 KiB, so only
    their content is kept."""

    _reader: Reader
    is_stream: bool
    _unparsed: bytearray = field(default_factory=bytearray)
    _transcript: Transcript = field(default_factory=Transcript)

    @property
    def held(self) -> int:
        """About how many bytes of memory it takes: unparsed bytes and the transcript."""
        return len(self._unparsed) + self._transcript.held

    def feed(self, data: bytes) -> None:
        """Takes the next bytes; raises nothing, whatever they are."""
        self._unparsed += data
        if len(self._unparsed) <= PIECE_BYTES:
            return
        if self.is_stream and b"\n" in data:
            lines, _, self._unparsed = self._unparsed.rpartition(b"\n")
            self._read(lines)
        if len(self._unparsed) > MAX_SINGLE_BYTES:
            self._unparsed.clear()
            self._transcript.cut = True

    def end(self) -> Transcript:
        """The transcript, after the last byte."""
        self._read(self._unparsed)
        self._unparsed = bytearray()
        return self._transcript

    def _read(self, data: bytes | bytearray) -> None:
        for line in data.split(b"\n") if self.is_stream else (data,):
            # In a stream, each line of NDJSON or of the data of server-sent events is a document.
            document = line.removeprefix(b"data:").strip()
            if not document.startswith(b"{"):
                continue
            try:
                read = orjson.loads(document)
                if error := read.get("error"):
                    self._transcript.record_failure(error)
                self._reader(read, self._transcript)
            except (ValueError, AttributeError, TypeError, KeyError, IndexError):
                # Not a document of this dialect: it is passed through, but is no
                # part of the transcript.
                continue
        self._transcript.pack()
