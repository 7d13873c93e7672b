"""The access log and the event log: one JSON line per request or event, to stdout and to files.

Lines are queued in memory, and a thread of gevent's pool writes them, so no request waits for the
disk. A file is reopened after it was renamed, so rotation needs no signal, and each write appends
whole lines, so workers don't mix them. Prompts, answers and tokens are never written here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import gevent
import orjson
from gevent import monkey

from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.telemetry.usage_record import UsageRecord

#: Seconds between two writes.
FLUSH_INTERVAL_S = 0.2

#: Most lines in the queue; beyond that the oldest are dropped and counted.
MAX_WAITING = 50_000

#: Writes to a pipe up to this size are atomic, in bytes (PIPE_BUF).
PIPE_BYTES = 4096

#: Longest wait at exit for a thread that is writing.
FLUSH_TIMEOUT_S = 1.0

#: Fields of events whose values neither clients nor upstreams choose.
_OUR_FIELDS = frozenset({"time", "level", "event", "upstream"})

# gevent replaces both in a worker.
_get_thread_id = monkey.get_original("_thread", "get_ident")
_allocate_lock = monkey.get_original("_thread", "allocate_lock")

log = logging.getLogger("ollama_proxy")


#: Writes whole lines, in the thread of the LineWriter; raises nothing.
Sink = Callable[[list[bytes]], None]


@dataclass(slots=True, eq=False)
class LineFile:
    """An append-only file of lines, reopened after rotation."""

    _path: Path
    #: Applies when the file is created.
    _mode: int = 0o640
    #: Where a failed write is reported.
    _output: LineWriter | None = None
    _fd: int = -1
    _identity: tuple[int, int] | None = None
    #: The last write failed, so the last line may be incomplete, even one of another process.
    _failed: bool = False

    def write(self, lines: list[bytes]) -> None:
        """Appends whole lines in one write. On a full disk these lines are lost,
        which is logged once."""
        had_failed = self._failed
        try:
            self.append(b"".join(lines))
        except OSError as error:
            if not had_failed and self._output is not None:
                document = {
                    "time": stamp(),
                    "level": "ERROR",
                    "event": "log_file_failed",
                    "file": self._path.name,
                }
                self._output.put(
                    STDOUT, orjson.dumps({**document, "problem": error.strerror}) + b"\n"
                )

    def append(self, data: bytes) -> None:
        """Appends whole lines in one write; raises OSError. A line that a full disk cut
        short remains on its own."""
        had_failed, self._failed = self._failed, True
        identity: tuple[int, int] | None = None
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self._path)
            identity = (status.st_dev, status.st_ino)
        if identity is None or identity != self._identity:
            self.close()
            self._fd = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode
            )
            status = os.fstat(self._fd)
            self._identity = (status.st_dev, status.st_ino)
        if had_failed:
            with open(self._path, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                data = data if file.read(1) in (b"\n", b"") else b"\n" + data
        _write_whole(self._fd, data)
        self._failed = False

    def close(self) -> None:
        """Closes the file; the next write opens it again."""
        fd, self._fd, self._identity = self._fd, -1, None
        if fd >= 0:
            os.close(fd)


def write_pieces(fd: int, lines: list[bytes]) -> None:
    """Writes lines to a stream that other processes share, as many in one
    piece as is still atomic."""
    piece = b""
    with contextlib.suppress(OSError):
        for line in lines:
            if piece and len(piece) + len(line) > PIPE_BYTES:
                _write_whole(fd, piece)
                piece = b""
            piece += line
        _write_whole(fd, piece)


def _write_whole(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class LineWriter:
    """Queues lines and writes them five times a second, in another thread. `output`: gets the note
    that lines were dropped; None: it does itself."""

    def __init__(self, output: LineWriter | None = None) -> None:
        self._output = output or self
        self._waiting: deque[tuple[Sink, bytes]] = deque(maxlen=MAX_WAITING)
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._pid = os.getpid()
        self._dropped = 0
        self._thread = _get_thread_id()
        # Not gevent's: the watchdog's thread writes while the event loop is blocked.
        self._writing = _allocate_lock()

    def put(self, sink: Sink, line: bytes) -> None:
        """Queues one line, which includes its end; returns at once. Lines of another thread are
        written with the next ones of this thread, or by `flush`."""
        self._dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append((sink, line))
        if (
            self._greenlet is None or self._pid != os.getpid()
        ) and _get_thread_id() == self._thread:
            self._pid = os.getpid()
            self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        pool = gevent.get_hub().threadpool
        while True:
            gevent.sleep(FLUSH_INTERVAL_S)
            if self._waiting:
                pool.apply(self.flush)

    def flush(self, timeout_s: float = -1) -> None:
        """Writes the whole queue before it returns, in the calling thread. `timeout_s`: seconds to
        wait for another thread that is writing, after which nothing is written; -1: no limit."""
        if not self._writing.acquire(True, timeout_s):
            return
        try:
            batches: dict[Sink, list[bytes]] = {}
            if dropped := self._dropped:
                self._dropped = 0
                document = {
                    "time": stamp(),
                    "level": "ERROR",
                    "event": "log_lines_dropped",
                    "lines": dropped,
                }
                self._output.put(STDOUT, orjson.dumps(document) + b"\n")
            while self._waiting:
                sink, line = self._waiting.popleft()
                batches.setdefault(sink, []).append(line)
            for sink, lines in batches.items():
                sink(lines)
        finally:
            self._writing.release()


STDOUT: Sink = partial(write_pieces, sys.__stdout__.fileno() if sys.__stdout__ else 1)


class LogWriters:
    """The writers of a process: two, so that a reader of standard output that has stopped reading
    does not stop the files."""

    def __init__(self) -> None:
        self.output = LineWriter()
        self.files = LineWriter(self.output)

    def flush(self) -> None:
        """Writes all queued lines, at the exit of a worker; gives up on an output that blocks."""
        self.files.flush(FLUSH_TIMEOUT_S)
        self.files.flush(FLUSH_TIMEOUT_S)  # events that the first one has caused
        self.output.flush(FLUSH_TIMEOUT_S)


def stamp() -> str:
    """Now, as RFC 3339 in UTC with milliseconds."""
    now = time.time()
    return f"{_format_second(int(now))}.{int(now % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _format_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class AccessLog:
    """One line per request, in `access.log` and on stdout. `is_enabled` is called for each request,
    because settings may change while the gateway runs."""

    def __init__(
        self, directory: Path | None, *, is_enabled: Callable[[], bool], writers: LogWriters
    ) -> None:
        files = directory and LineFile(directory / "access.log", _output=writers.output).write
        self._outputs: tuple[tuple[LineWriter, Sink], ...] = (
            ((writers.output, STDOUT), (writers.files, files)) if files else ()
        )
        self._is_enabled = is_enabled

    def record(self, record: UsageRecord) -> None:
        """Logs a finished exchange; a sink of records."""
        if self._outputs and self._is_enabled():
            line = orjson.dumps(access_record(record)) + b"\n"
            for writer, sink in self._outputs:
                writer.put(sink, line)


def access_record(record: UsageRecord) -> dict[str, object]:
    """The fields of the access log; times in ms, counts in tokens, sizes in bytes."""
    return {
        "time": stamp(),
        "id": record.id,
        "client": record.client,
        "token": record.token or None,
        "user": record.user or None,
        "method": record.method,
        "path": record.path,
        "dialect": record.dialect,
        "model": record.model or None,
        "upstream": record.upstream or None,
        "status": record.status,
        "stream": record.stream,
        "clamped": record.clamped or None,
        "truncated": record.truncated or None,
        "attempts": record.retries or None,
        "bytes": record.bytes,
        "prompt_eval_count": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "cache_write_tokens": record.cache_write_tokens,
        "eval_count": record.completion_tokens,
        "estimated": record.estimated or None,
        "queue_ms": record.queue_ms,
        "first_byte_ms": record.first_byte_ms,
        "total_ms": record.total_ms,
        "state": record.state,
        "error": record.error or None,
    }


class JsonLines(logging.Handler):
    """The package's log as JSON lines: the message is the `event`; `extra={"fields":
    {...}}` adds further fields."""

    def __init__(
        self, directory: Path | None, configured_tokens: ConfiguredTokens, writers: LogWriters
    ) -> None:
        super().__init__()
        self.writers = writers
        self._configured_tokens = configured_tokens
        self._outputs: list[tuple[LineWriter, Sink]] = [(writers.output, STDOUT)]
        if directory:
            file = LineFile(directory / "events.log", _output=writers.output)
            self._outputs.append((writers.files, file.write))

    def emit(self, record: logging.LogRecord) -> None:
        """Queues the line of one record."""
        fields: Mapping[str, object] = getattr(record, "fields", {})
        document = {"level": record.levelname, "event": record.getMessage(), **fields}
        if record.exc_info and record.exc_info[1]:
            # Only places: the values may be a prompt or a token.
            places = traceback.extract_tb(record.exc_info[2])[-12:]
            names = [format_location(each.filename, each.lineno, each.name) for each in places]
            document["traceback"] = [*names, type(record.exc_info[1]).__name__]
        self.put(document)

    def put(self, fields: Mapping[str, object]) -> None:
        """Queues one line with these fields and the time."""
        document = {"time": stamp(), **fields}
        shown = {
            name: value if name in _OUR_FIELDS else self._shorten(value)
            for name, value in document.items()
        }
        line = orjson.dumps(shown, default=str) + b"\n"
        for writer, sink in self._outputs:
            writer.put(sink, line)

    def _shorten(self, value: object) -> object:
        """A value that a client or an upstream may have chosen, cut so that lines stay
        atomic, with tokens masked."""
        if isinstance(value, list | tuple):
            return [self._shorten(item) for item in value]
        return self._configured_tokens.shown(value, 500) if isinstance(value, str) else value


def note(level: str, event: str, **fields: object) -> None:
    """Logs an event from another thread, which must not wait for the locks of `logging`:
    greenlets hold those."""
    for handler in log.handlers:
        if isinstance(handler, JsonLines):
            handler.put({"level": level, "event": event, **fields})


def flush_log() -> None:
    """Writes all lines of events that are queued, in the calling thread."""
    for handler in log.handlers:
        if isinstance(handler, JsonLines):
            handler.writers.flush()


def format_location(file: str, line: int | None, function: str) -> str:
    """A place in the code, such as `app.py:12 create_app`."""
    return f"{Path(file).name}:{line} {function}"


def configure(
    directory: Path | None,
    level: str,
    *,
    configured_tokens: ConfiguredTokens,
    writers: LogWriters,
) -> None:
    """Sends the package's log, of which a process has one, to stdout and to `directory` (created if
    missing), without these tokens; None: to stdout only.

    If the directory can't be created, the gateway runs without the files.
    """
    if directory:
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
    log.handlers[:] = [JsonLines(directory, configured_tokens, writers)]
    log.setLevel(level)
    log.propagate = False
