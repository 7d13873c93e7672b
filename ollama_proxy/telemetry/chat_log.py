"""Prompts and answers, where the operator wants them: one JSON line per request, one file per day, in `chat/`.

The bytes that go to the client are heard on their way and read by the dialect's reader, because those are there for
every way through, passed on or translated, and are what the client really got. Reading, redacting and writing happen
in the log writer's thread; a request never waits for any of it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
from flask import Response, request

from ollama_proxy.gateway import Exchange, current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.settings import Settings
from ollama_proxy.telemetry.access_log import FILES, LineFile, access_record, note
from ollama_proxy.telemetry.redaction import Redaction
from ollama_proxy.telemetry.transcript import Reader, Transcript, TranscriptRecorder

#: Requests and answers that may wait to be written, in bytes of memory; what comes on top of that is left out and
#: counted.
MAX_WAITING_BYTES = 64 << 20

#: Values of a request whose sizes are looked at. Above that each byte of it counts for as much as JSON can make of one.
MOST_VALUES, WORST_FACTOR = 10_000, 32

#: Seconds between two complaints.
COMPLAINT_S = 60.0

_STREAMS = ("text/event-stream", "application/x-ndjson")


@dataclass(slots=True)
class Record:
    """One request that is over. Holds no more of its exchange than is written."""

    fields: dict[str, Any]
    request: dict[str, Json]
    #: None: the answer is vectors, or there was none to be heard.
    recorder: TranscriptRecorder | None
    #: How many vectors the answer is; None: none.
    vectors: int | None
    #: SHA-256 of the tokens that must not be in it.
    tokens: Collection[bytes]
    #: What it takes in memory, in bytes.
    size: int

    def line(self) -> bytes:
        """The line, with its end."""
        asked, said = Redaction(self.tokens), Redaction(self.tokens)
        transcript = self.recorder.end() if self.recorder else Transcript()
        document = {
            **{name: asked.of(value) for name, value in self.fields.items()},
            "request": asked.of(self.request),
            "answers": said.of(transcript.answers()),
            "vectors": self.vectors,
            "failure": said.of(transcript.error),
        }
        cut = {"request": asked.cut, "answers": transcript.cut or said.cut}
        return orjson.dumps(document | {"cut": [name for name, is_cut in cut.items() if is_cut]}) + b"\n"


class DayFiles:
    """Records on their way to the file of their day; `write` runs in the log writer's thread. See telemetry.Sink."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: deque[Record] = deque()
        #: Bytes handed over and bytes taken: each is counted up by one thread alone.
        self._put = self._taken = 0
        self._left_out = 0
        self._day = ""
        self._file = LineFile(directory)
        self._is_failing = False
        self._complained_at = -COMPLAINT_S

    def put(self, record: Record) -> None:
        """Hands over one record; returns at once."""
        if self._put - self._taken > MAX_WAITING_BYTES:
            self._left_out += 1
            return
        self._put += record.size
        self._waiting.append(record)
        FILES.put(self, b"")

    def write(self, lines: list[bytes]) -> None:
        """Writes all records that wait; the lines only say that there are some."""
        while self._waiting:
            record = self._waiting.popleft()
            self._taken += record.size
            try:
                line = record.line()
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if (day := record.fields["time"][:10]) != self._day:
                    self._file.close()
                    self._day, self._file = day, LineFile(self._directory / f"{day}.jsonl", 0o600)
                self._file.append(line)
                self._is_failing = False
            except OSError as error:
                self._complain(error.strerror or type(error).__name__)
            except Exception as error:  # whatever a client has sent: the thread writes the other logs as well
                self._complain(type(error).__name__)
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            note("ERROR", "chat_log_behind", records=left_out, effect="they are not in the chat log")

    def _complain(self, problem: str) -> None:
        """Says once that lines are lost: again only after one was written, and not more often than once a minute."""
        now = time.monotonic()
        if not self._is_failing and now - self._complained_at >= COMPLAINT_S:
            self._complained_at = now
            effect = "requests go on, and are not in the chat log"
            note("ERROR", "chat_log_failed", problem=problem, directory=str(self._directory), effect=effect)
        self._is_failing = True


class ChatLog:
    """Hears answers while the settings say so. `readers`: the endpoints whose requests are written, and who understands
    their answers; None: those are vectors."""

    def __init__(self, directory: Path, readers: Mapping[str, Reader | None], settings: Callable[[], Settings]) -> None:
        self._files = DayFiles(directory / "chat")
        self._readers = readers
        self._settings = settings

    def attend(self, response: Response) -> Response:
        """Flask's after_request: from here on the answer is heard, and written down once it is over."""
        endpoint, exchange = request.endpoint or "", current_exchange()
        # Without data nothing was asked: it was refused unread.
        if not (self._settings().logging.chat_logs and endpoint in self._readers and exchange.data):
            return response
        recorder: TranscriptRecorder | None = None
        reader = self._readers[endpoint]
        if reader is not None or response.status_code != 200:  # of vectors nothing but an error is wanted
            recorder = TranscriptRecorder(
                reader or (lambda document, spoken: None), is_stream=response.mimetype in _STREAMS
            )
            if response.is_streamed:
                response.response = _overheard(cast("Iterator[bytes]", response.response), recorder.feed)
            else:
                recorder.feed(response.get_data())
        exchange.finish_observers.append(partial(self._record, recorder))
        return response

    def _record(self, recorder: TranscriptRecorder | None, exchange: Exchange) -> None:
        vectors: int | None = None
        if recorder is None:  # one for each text
            texts = exchange.data.get("input")
            vectors = len(texts) if isinstance(texts, list) else 1
        tokens = {token.digest for token in self._settings().auth.tokens()}
        size = memory(exchange.data, len(exchange.body)) + (recorder.held if recorder else 0)
        self._files.put(Record(access_record(exchange), exchange.data, recorder, vectors, tokens, size))


def _overheard(pieces: Iterator[bytes], feed: Callable[[bytes], None]) -> Iterator[bytes]:
    """The same pieces, each heard on its way."""
    try:
        for piece in pieces:
            feed(piece)
            yield piece
    finally:
        # The end of an answer that nobody reads to its end has to reach whoever makes it.
        if close := getattr(pieces, "close", None):
            close()


def memory(document: Json, size: int) -> int:
    """Bytes of memory that a document takes, about, or at most where it has very many values; `size`: the bytes that it
    was read from."""
    taken, left = 0, [document]
    for _ in range(MOST_VALUES):
        if not left:
            return taken
        value = left.pop()
        taken += sys.getsizeof(value)
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
    return WORST_FACTOR * size
