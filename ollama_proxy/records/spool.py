"""The files in which a worker notes what its requests use, until the coordinator has
imported them into the records.

A worker writes two lines for each admitted exchange, one when it begins and one when it ends, each
with one write, to files of its own: `<worker id>.<number>`. It holds a lock on the newest one as
long as it lives, so a file whose lock is free is complete. After 4 MiB it begins the next one.
Lines that are no JSON were cut by a full disk.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.policy import ConfiguredTokens, show_method
from ollama_proxy.texts import Translatable

if TYPE_CHECKING:  # the coordinator and the commands do without Flask and the rest of the gateway
    from ollama_proxy.gateway import Exchange
    from ollama_proxy.telemetry import UsageRecord

log = logging.getLogger(__name__)

#: Where workers write, in the state directory; and the version of the format, on the
#: first line of each file.
SPOOL_DIRECTORY, SPOOL_VERSION = "usage", 1

#: Size after which a worker begins a new file, and limit for all files of the directory, in bytes.
MAX_FILE_BYTES, MAX_BYTES = 4 << 20, 1 << 30

#: Seconds until a file that could not be opened is tried again.
RETRY_S = 1.0


class Spool:
    """The spool of this worker. Nothing is opened before the first line, so it
    may be made before a fork.

    It never raises and never waits: a line that can't be written is counted, and reported once.
    """

    def __init__(
        self,
        directory: Path,
        configured_tokens: ConfiguredTokens,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`directory`: created with mode 0700 if it is missing; `configured_tokens`: are masked."""
        self._directory, self._clock = directory, clock
        self._configured_tokens = configured_tokens
        #: Lines that could not be written, because the disk or the spool is full.
        self.unwritten = 0
        #: Why the last line could not be written; "" if it was.
        self._problem = ""
        self._fd = -1
        #: Of the last row, in milliseconds since 1970.
        self._last_ms = 0
        self._begin_anew()

    def begin(self, exchange: Exchange) -> str:
        """Notes that an exchange begins; returns the id of its row. Ids keep the order of
        beginnings even if the clock is set back."""
        if self._pid != os.getpid():
            self.close()  # that of the process that this one was forked from, which keeps its lock
            self._begin_anew()
        self._rows += 1
        self._last_ms = max(self._last_ms, int(exchange.started_at * 1000))
        row_id = f"{self._last_ms:012x}{self._random}{self._rows:06x}"
        shown, principal = self._configured_tokens.shown, exchange.principal
        self._write(
            {
                "begin": {
                    "row_id": row_id,
                    "id": exchange.id,
                    "started_at": exchange.started_at,
                    "token": principal.name if principal else "",
                    "user": shown(exchange.user, 254) if exchange.user else "",
                    "trusted_user": shown(exchange.trusted_user, 254)
                    if exchange.trusted_user
                    else "",
                    "dialect": exchange.dialect.name,
                    "route": exchange.route,
                    "method": show_method(exchange.method),
                }
            }
        )
        return row_id

    def end(self, record: UsageRecord) -> None:
        """Notes the end of an exchange that has begun here; a sink of records."""
        if record.row_id:
            self._write({"end": record})

    def list_problems(self) -> list[dict[str, str]]:
        """What an operator should mend, with how."""
        if not self._problem:
            return []
        what = Translatable(
            "the usage of requests is lost, %(lines)s lines so far: %(reason)s",
            lines=self.unwritten,
            reason=self._problem,
        )
        mend = Translatable(
            "make room on the disk of %(directory)s, or see whether it can be written",
            directory=str(self._directory),
        )
        return [{"what": what, "mend": mend}]

    def close(self) -> None:
        """Closes the file, which gives its lock up: what has begun and not ended is lost."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _begin_anew(self) -> None:
        """Files and ids belong to one process."""
        self._pid = os.getpid()
        self._random = secrets.token_hex(4)
        self._worker = f"{int(self._clock.time() * 1000):012x}-{self._pid}-{self._random}"
        self._rows = self._files = self._size = 0
        #: The last line may be incomplete.
        self._is_torn = False
        #: Monotonic time before which no file is opened.
        self._retry_at = 0.0

    def _write(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        try:
            if self._fd < 0 or self._size >= MAX_FILE_BYTES:
                self._open_next()
            if self._is_torn:
                data = b"\n" + data
            written = os.write(self._fd, data)
            self._size += written
            self._is_torn = written < len(data)
            if written < len(data) - 1:  # a line that lacks nothing but its end is complete
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.unwritten += 1
            if not self._problem:
                self._problem = error.strerror or type(error).__name__
                log.error("usage_not_written", extra={"fields": {"problem": self._problem}})
            return
        if self._problem:
            self._problem = ""
            log.warning("usage_written_again", extra={"fields": {"unwritten": self.unwritten}})

    def _open_next(self) -> None:
        """Opens and locks the next file before it closes the last one. Raises OSError, also if the
        last try was a moment ago."""
        if self._clock.monotonic() < self._retry_at:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._retry_at = self._clock.monotonic() + RETRY_S
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if (
            sum([each.stat().st_size for each in os.scandir(self._directory)]) + MAX_FILE_BYTES
            > MAX_BYTES
        ):
            raise OSError(errno.EDQUOT, f"{self._directory} is full")
        path = self._directory / f"{self._worker}.{self._files:06d}"
        # Nobody sees the file before it is locked: it would look like that of
        # a worker that is gone.
        hidden = path.with_name(f".{path.name}")
        fd = os.open(
            hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            head = orjson.dumps({"spool": SPOOL_VERSION, "worker": self._worker}) + b"\n"
            if os.write(fd, head) < len(head):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(hidden, path)
        except OSError:
            os.close(fd)
            os.unlink(hidden)
            raise
        self.close()
        self._fd, self._size, self._is_torn = fd, len(head), False
        self._files += 1
        self._retry_at = 0.0
