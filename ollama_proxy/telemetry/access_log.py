"""What the operator gets to see: one JSON line per request, one per event, to stdout and to files.

Lines are handed over in memory and written off the request's path, by a thread of the hub's pool. Files are opened
anew when they were renamed, so rotation needs no signal, and each write appends whole lines, so workers don't mix
them. Prompts, answers and tokens never come here.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import gevent
import orjson
from gevent import monkey

from ollama_proxy.gateway import Exchange
from ollama_proxy.policy import TOKENS

#: Seconds between two writes.
FLUSH_INTERVAL_S = 0.2

#: Lines that may wait to be written; beyond that the oldest are dropped, and counted.
MAX_WAITING = 50_000

#: Pipes keep writes up to this size whole, in bytes (PIPE_BUF).
PIPE_BYTES = 4096

#: Longest wait for somebody else's write, where something ends.
PATIENCE_S = 1.0

#: Any other word may be a token.
_METHODS = {name: name for name in "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split()}

#: Fields of events whose values no client and no upstream has chosen.
_OUR_FIELDS = frozenset({"time", "level", "event", "upstream"})

_own_thread = monkey.get_original("_thread", "get_ident")
_real_lock = monkey.get_original("_thread", "allocate_lock")

log = logging.getLogger("ollama_proxy")


class Sink(Protocol):
    def write(self, lines: list[bytes]) -> None:
        """Writes whole lines, in the writer's own thread; raises nothing."""


class LineFile:
    """An append-only file of lines that follows its name through rotation; `mode`: who may read it once it is made."""

    def __init__(self, path: Path, mode: int = 0o640) -> None:
        self._path = path
        self._mode = mode
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        #: The last write failed: the last line may be only half there, also one of another process.
        self._failed = False

    def write(self, lines: list[bytes]) -> None:
        """Appends whole lines in one write. A full disk loses lines of this file, never requests; that is said once."""
        before = self._failed
        try:
            self.append(b"".join(lines))
        except OSError as error:
            if not before:
                document = {"time": stamp(), "level": "ERROR", "event": "log_file_failed", "file": self._path.name}
                put(STDOUT, orjson.dumps({**document, "problem": error.strerror}) + b"\n")

    def append(self, data: bytes) -> None:
        """Appends whole lines in one write; raises OSError. What a full disk has cut stays on a line of its own."""
        before, self._failed = self._failed, True
        self._follow()
        if before:
            with open(self._path, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                data = data if file.read(1) in (b"\n", b"") else b"\n" + data
        _write_whole(self._fd, data)
        self._failed = False

    def close(self) -> None:
        """Lets go of the file; what is written later opens it again."""
        fd, self._fd, self._identity = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def _follow(self) -> None:
        try:
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                return
        except FileNotFoundError:
            pass
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode)
        status = os.fstat(self._fd)
        self._identity = (status.st_dev, status.st_ino)


class LineStream:
    """Standard output, shared with other processes: written in pieces that stay whole."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, lines: list[bytes]) -> None:
        """Writes lines, several to a piece as long as the piece stays whole."""
        piece = b""
        with contextlib.suppress(OSError):
            for line in lines:
                if piece and len(piece) + len(line) > PIPE_BYTES:
                    _write_whole(self._fd, piece)
                    piece = b""
                piece += line
            _write_whole(self._fd, piece)


def _write_whole(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class LineWriter:
    """Collects lines per sink and writes them from time to time, off the request's path."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Sink, bytes]] = deque(maxlen=MAX_WAITING)
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._pid = os.getpid()
        self._dropped = 0
        self._thread = _own_thread()
        # A real lock: the watchdog's thread writes while the event loop stands still.
        self._writing = _real_lock()

    def put(self, sink: Sink, line: bytes) -> None:
        """Hands over one line, with its end; returns at once. Also from another thread, which can't begin to write."""
        self._dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append((sink, line))
        if (self._greenlet is None or self._pid != os.getpid()) and _own_thread() == self._thread:
            self._pid = os.getpid()
            self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        pool = gevent.get_hub().threadpool
        while True:
            gevent.sleep(FLUSH_INTERVAL_S)
            if self._waiting:
                pool.apply(self.flush)

    def flush(self, patience_s: float = -1) -> None:
        """Writes everything that waits, before it returns; in whatever thread. `patience_s`: how long it waits for
        another thread that writes, in seconds; -1: as long as it takes."""
        if not self._writing.acquire(True, patience_s):
            return
        try:
            batches: dict[Sink, list[bytes]] = {}
            if dropped := self._dropped:
                self._dropped = 0
                document = {"time": stamp(), "level": "ERROR", "event": "log_lines_dropped", "lines": dropped}
                put(STDOUT, orjson.dumps(document) + b"\n")
            while self._waiting:
                sink, line = self._waiting.popleft()
                batches.setdefault(sink, []).append(line)
            for sink, lines in batches.items():
                sink.write(lines)
        finally:
            self._writing.release()


STDOUT = LineStream(sys.__stdout__.fileno() if sys.__stdout__ else 1)

#: Whoever reads standard output may stop to: files are written all the same.
_FILES, _OUTPUT = LineWriter(), LineWriter()


def put(sink: Sink, line: bytes) -> None:
    """Hands over one line, with its end, to be written soon; returns at once."""
    (_OUTPUT if sink is STDOUT else _FILES).put(sink, line)


def flush_all() -> None:
    """Writes what waits; for the end of a worker, which does not wait for a reader that has stopped."""
    _FILES.flush(PATIENCE_S)
    _FILES.flush(PATIENCE_S)  # what the sinks had to say about the first time
    _OUTPUT.flush(PATIENCE_S)


atexit.register(flush_all)


def stamp() -> str:
    """Now, as RFC 3339 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AccessLog:
    """One line per request, in `access.log` and on stdout. `is_enabled` is asked at each request, because settings
    may change while the gateway runs."""

    def __init__(self, directory: Path | None, *, is_enabled: Callable[[], bool]) -> None:
        self._sinks: list[Sink] = [STDOUT, LineFile(directory / "access.log")] if directory else []
        self._is_enabled = is_enabled

    def record(self, exchange: Exchange) -> None:
        """Writes what became of an exchange; a finish observer."""
        if self._sinks and self._is_enabled():
            line = orjson.dumps(access_record(exchange)) + b"\n"
            for sink in self._sinks:
                put(sink, line)


def access_record(exchange: Exchange) -> dict[str, object]:
    """The fields of the access log; times in ms, counts in tokens, sizes in bytes."""
    started = exchange.call.started
    first, usage = exchange.first_byte_at, exchange.usage
    return {
        "time": stamp(),
        "id": exchange.id,
        "client": TOKENS.shown(exchange.client, 100),
        "token": exchange.principal.name if exchange.principal else None,
        "user": TOKENS.shown(exchange.user or "", 100) or None,
        "method": _METHODS.get(exchange.method, "(unknown)"),
        "path": TOKENS.shown(exchange.path, 500),
        "dialect": exchange.dialect.name,
        "model": TOKENS.shown(exchange.model, 200) or None,
        "upstream": exchange.upstream or None,
        "status": exchange.status,
        "stream": exchange.stream,
        **{name: list(getattr(exchange, name)) or None for name in ("clamped", "truncated", "attempts")},
        "bytes": exchange.bytes_out,
        "prompt_eval_count": usage.prompt,
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_written,
        "eval_count": usage.completion,
        "estimated": exchange.estimated or None,
        "first_byte_ms": _ms(first, started),
        "total_ms": _ms(time.monotonic(), started),
        "state": exchange.state,
        "error": exchange.error or None,
    }


def _ms(moment: float | None, started: float) -> float | None:
    return None if moment is None else round((moment - started) * 1000, 1)


class JsonLines(logging.Handler):
    """The package's log as JSON lines: `event` says what, further fields come by `extra={"fields": {...}}`."""

    def __init__(self, directory: Path | None) -> None:
        super().__init__()
        self._sinks: list[Sink] = [STDOUT]
        if directory:
            self._sinks.append(LineFile(directory / "events.log"))

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        fields: Mapping[str, object] = getattr(record, "fields", {})
        document = {"level": record.levelname, "event": record.getMessage(), **fields}
        if record.exc_info and record.exc_info[1]:
            document["traceback"] = frames(record.exc_info[1])
        self.put(document)

    def put(self, fields: Mapping[str, object]) -> None:
        """One line with these fields and the time."""
        document = {"time": stamp(), **fields}
        shown = {name: value if name in _OUR_FIELDS else _short(value) for name, value in document.items()}
        line = orjson.dumps(shown, default=str) + b"\n"
        for sink in self._sinks:
            put(sink, line)


def note(level: str, event: str, **fields: object) -> None:
    """An event from the writer's own thread, which must not wait for the locks of `logging`: greenlets hold those."""
    for handler in log.handlers:
        if isinstance(handler, JsonLines):
            handler.put({"level": level, "event": event, **fields})


def _short(value: object) -> object:
    """Texts that a client or an upstream chose are cut, so that lines stay whole, and hold no token."""
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return TOKENS.shown(value, 500) if isinstance(value, str) else value


def frames(error: BaseException) -> list[str]:
    """Where it happened, never with what values: those may be a prompt or a token."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return [located(f.filename, f.lineno, f.name) for f in frames] + [type(error).__name__]


def located(file: str, line: int | None, function: str) -> str:
    """A place in the code, as the log names it."""
    return f"{Path(file).name}:{line} {function}"


def configure(directory: Path | None, level: str) -> None:
    """Sends the package's log to stdout and to `directory` (created when missing); None: stdout only.

    A directory that can't be made costs the files, never the service.
    """
    if directory:
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
    log.handlers[:] = [JsonLines(directory)]
    log.setLevel(level)
    log.propagate = False
