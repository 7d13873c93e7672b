"""The chat log, if it is enabled: prompts and answers, one JSON line per request, one
file per day, in `chat/`.

The bytes that go to the client are recorded and parsed by the reader of its dialect: they are the
same for passed through and translated answers, and they are what the client received. Parsing,
redacting and writing happen in the thread of the log writer, so no request waits for them.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
from flask import Response, request

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.gateway import Exchange, current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.settings import Settings
from ollama_proxy.telemetry.access_log import LineFile, LineWriter, access_record, note
from ollama_proxy.telemetry.redaction import Redaction
from ollama_proxy.telemetry.transcript import Reader, Transcript, TranscriptRecorder
from ollama_proxy.telemetry.usage_record import make_record

#: Most memory for records in the queue, in bytes; further ones are dropped and counted.
MAX_WAITING_BYTES = 64 << 20

#: Most values of a request whose sizes are added up. If there are more, the request's bytes are
#: multiplied by the worst ratio of memory to JSON.
MOST_VALUES, WORST_FACTOR = 10_000, 32

#: Seconds between two reports of a failure.
REPORT_INTERVAL_S = 60.0

_STREAMS = ("text/event-stream", "application/x-ndjson")


@dataclass(slots=True)
class Record:
    """One finished request. Holds no more of its exchange than is written."""

    fields: dict[str, Any]
    request: dict[str, Json]
    #: None: the answer consists of vectors.
    recorder: TranscriptRecorder | None
    #: Number of vectors in the answer; None: it is a text or an error.
    vectors: int | None
    #: SHA-256 of the tokens that must not be written.
    tokens: Collection[bytes]
    #: The same in any form that the gateway knows.
    configured_tokens: ConfiguredTokens
    #: Its memory, in bytes.
    size: int

    def render(self) -> bytes:
        """The line, which includes its end."""
        request, answer = [Redaction(self.tokens, self.configured_tokens) for _ in range(2)]
        transcript = self.recorder.end() if self.recorder else Transcript()
        document = {
            **{name: request.redact(value) for name, value in self.fields.items()},
            "request": request.redact(self.request),
            "answers": answer.redact(transcript.answers()),
            "vectors": self.vectors,
            "failure": answer.redact(transcript.error),
        }
        cut = {"request": request.cut, "answers": transcript.cut or answer.cut}
        return (
            orjson.dumps(document | {"cut": [name for name, is_cut in cut.items() if is_cut]})
            + b"\n"
        )


class DayFiles:
    """The queue of records and the file of each day; its `write`, a Sink, runs in the
    thread of the log writer."""

    def __init__(self, directory: Path, writer: LineWriter, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._directory, self._writer, self._clock = directory, writer, clock
        self._waiting: deque[Record] = deque()
        #: Bytes put in and taken out; each counter has one thread that changes it.
        self._put = self._taken = 0
        self._dropped = 0
        self._day = ""
        self._file = LineFile(directory)
        self._is_failing = False
        self._reported_at = -REPORT_INTERVAL_S

    def put(self, record: Record) -> None:
        """Queues one record; returns at once."""
        if self._put - self._taken > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._put += record.size
        self._waiting.append(record)
        self._writer.put(self.write, b"")

    def write(self, lines: list[bytes]) -> None:
        """Writes all queued records; the lines themselves are empty and only schedule the call."""
        while self._waiting:
            record = self._waiting.popleft()
            self._taken += record.size
            try:
                line = record.render()
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if (day := record.fields["time"][:10]) != self._day:
                    self._file.close()
                    self._day, self._file = day, LineFile(self._directory / f"{day}.jsonl", 0o600)
                self._file.append(line)
                self._is_failing = False
            except OSError as error:
                self._report_failure(error.strerror or type(error).__name__)
            except Exception as error:  # this thread writes the other logs as well
                self._report_failure(type(error).__name__)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            note("ERROR", "chat_log_behind", records=dropped, effect="these records were dropped")

    def _report_failure(self, problem: str) -> None:
        """Logs that records are lost: once until one is written again, and
        at most once a minute."""
        now = self._clock.monotonic()
        if not self._is_failing and now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            effect = "requests are answered, but missing in the chat log"
            note(
                "ERROR",
                "chat_log_failed",
                problem=problem,
                directory=str(self._directory),
                effect=effect,
            )
        self._is_failing = True


class ChatLog:
    """Records answers while the settings enable it. `readers`: the endpoints whose requests are
    written, each with the reader of its answers; None: the answers are vectors."""

    def __init__(
        self,
        directory: Path,
        readers: Mapping[str, Reader | None],
        settings: Callable[[], Settings],
        *,
        configured_tokens: ConfiguredTokens,
        writer: LineWriter,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._files = DayFiles(directory / "chat", writer, clock=clock)
        self._configured_tokens = configured_tokens
        self._readers = readers
        self._settings = settings

    def record_response(self, response: Response) -> Response:
        """For Flask's after_request: records the answer, which is written when its
        exchange is finished."""
        if not self._settings().logging.chat_logs:
            return response
        endpoint, exchange = request.endpoint or "", current_exchange()
        # A request without data was refused before its body was read.
        if endpoint not in self._readers or not exchange.data:
            return response
        recorder: TranscriptRecorder | None = None
        reader = self._readers[endpoint]
        # Vectors are not recorded, errors are.
        if reader is not None or response.status_code != 200:
            recorder = TranscriptRecorder(
                reader or (lambda document, transcript: None),
                is_stream=response.mimetype in _STREAMS,
            )
            if response.is_streamed:
                response.response = _record_stream(
                    cast("Iterator[bytes]", response.response), recorder.feed
                )
            else:
                recorder.feed(response.get_data())
        exchange.finish_observers.append(partial(self._record, recorder))
        return response

    def _record(self, recorder: TranscriptRecorder | None, exchange: Exchange) -> None:
        vectors: int | None = None
        if recorder is None:  # one vector for each text
            texts = exchange.data.get("input")
            vectors = len(texts) if isinstance(texts, list) else 1
        tokens = {token.digest for token in self._settings().auth.tokens()}
        size = estimate_memory(exchange.data, len(exchange.body)) + (
            recorder.held if recorder else 0
        )
        self._files.put(
            Record(
                access_record(make_record(exchange, self._configured_tokens)),
                exchange.data,
                recorder,
                vectors,
                tokens,
                self._configured_tokens,
                size,
            )
        )


def _record_stream(pieces: Iterator[bytes], feed: Callable[[bytes], None]) -> Iterator[bytes]:
    """The same pieces, each of which `feed` gets first."""
    try:
        for piece in pieces:
            feed(piece)
            yield piece
    finally:
        # If the client leaves, the source of the answer must be closed too.
        if close := getattr(pieces, "close", None):
            close()


def estimate_memory(document: Json, size: int) -> int:
    """About how many bytes of memory a document takes; an upper limit if it has very many values.
    `size`: the length of its JSON."""
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
