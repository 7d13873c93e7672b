"""The records in the process of the coordinator: imports what workers write, answers their calls,
and tells them what has changed.

The event loop, which also grants slots, only directs all this. Whatever needs the database
runs in real threads: one of them imports, a few others answer, so that a slow report delays
neither slots nor the import.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import gevent
import gevent.event
from gevent.threadpool import ThreadPool

from ollama_proxy.coordination import Spent
from ollama_proxy.errors import ConfigError, GatewayError, InternalError, RecordsUnavailable
from ollama_proxy.records.spool import MAX_BYTES, SPOOL_DIRECTORY
from ollama_proxy.texts import Translatable, text_to_json

if TYPE_CHECKING:  # 30 MB, which only the coordinator needs, and only if anything is recorded
    from ollama_proxy.records.opened import Opened

T = TypeVar("T")

Frame = dict[str, Any]
Send = Callable[[Frame], None]

#: Seconds between two looks for new lines when all are imported, and between two looks for changes.
IMPORT_S, POLL_S = 0.5, 1.0

#: Seconds between two attempts to use the database: at first, doubled each time, and at last.
RETRY_S, MAX_RETRY_S = 0.5, 10.0

#: Seconds between two runs of the retention.
TIDY_S = 3600.0

#: Seconds of the last import, when the coordinator ends.
CLOSE_S = 5.0

#: Calls that are answered at a time, and the longest time that one takes, in seconds.
QUERY_THREADS, ANSWER_S = 4, 10.0

#: How long a thread may compute before another one gets its turn, in seconds: an import
#: must not delay a slot.
SWITCH_S = 0.0001

#: Bytes of the spool beyond which it is reported that it will soon be full.
FULL_BYTES = 900 << 20


def open_records(directory: Path, settings: Frame) -> Opened:
    """Opens the database of the settings, and migrates it. Raises ConfigError
    and RecordsUnavailable."""
    opened: Opened = importlib.import_module("ollama_proxy.records.opened").Opened(
        directory, settings
    )
    return opened


class RecordsService:
    """See Records in `ollama_proxy.coordination`, whose methods these are. Without
    `url`, it does nothing."""

    def __init__(
        self,
        directory: Path,
        settings: Frame,
        open_records: Callable[[Path, Frame], Opened] = open_records,
    ) -> None:
        """`directory`: the state directory; `settings`: the section `records`."""
        self._directory, self._settings, self._open_records = directory, settings, open_records
        self._importer, self._askers = ThreadPool(1), ThreadPool(QUERY_THREADS)
        self._opened: Opened | None = None
        #: Why it can't be used; "" if it can.
        self._reason = ""
        self._push: Send = lambda frame: None
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        #: Somebody waits for an import, for a change; all lines have been imported.
        self._must_import, self._must_poll, self._is_imported = (
            gevent.event.Event() for _ in range(3)
        )
        #: What workers were told last.
        self._managed: Frame | None = None
        self._state: Frame = {
            "op": "records_state",
            "is_available": True,
            "reason": "",
            "problems": [],
        }
        self._state["spool_bytes"] = 0

    @property
    def is_available(self) -> bool:
        """See Records."""
        return not self._reason

    def start(self, push: Send) -> None:
        """See Records."""
        self._push = push
        sys.setswitchinterval(SWITCH_S)
        self._greenlets = [
            gevent.spawn(each)
            for each in (self._keep_importing, self._keep_polling, self._keep_tidy)
        ]

    def configure(self, settings: Frame) -> None:
        """See Records."""
        if settings != self._settings:
            self._settings = settings
            self._must_import.set()

    def list_news(self) -> Sequence[Frame]:
        """See Records."""
        return [self._state, *([self._managed] if self._managed else [])]

    def ask(self, call: str, arguments: Frame, reply: Send) -> None:
        """See Records."""
        gevent.spawn(self._answer, call, arguments, reply)

    def read_used(self, starts_s: Sequence[float]) -> Sequence[Mapping[str, Spent]]:
        """See Records."""
        while self._settings.get("url"):
            self._import_all()
            if self._opened is not None:
                with suppress(Exception):  # the import reports it
                    return [
                        _run_in(self._askers, self._opened.read_used, start_s)
                        for start_s in starts_s
                    ]
            gevent.sleep(RETRY_S)
        return [{} for _ in starts_s]

    def close(self) -> None:
        """See Records."""
        if self._opened is not None:
            self._import_all()
        gevent.killall(self._greenlets, timeout=2 * CLOSE_S)

    def _import_all(self) -> None:
        """Waits until everything is imported that has been written, or for a few seconds."""
        # A coordinator that was just killed may have been faster the first time.
        for _ in range(2):
            self._is_imported.clear()
            self._must_import.set()
            self._is_imported.wait(CLOSE_S)

    def _keep_importing(self) -> None:
        """Keeps a database open, and imports, for as long as the process lives."""
        pause_s = RETRY_S
        while True:
            settings = self._settings
            if not settings.get("url"):
                self._must_import.wait()
                self._must_import.clear()
                continue
            used: list[Opened] = []
            try:
                try:
                    _run_in(self._importer, self._open, settings, used)
                    [opened] = used
                    self._opened, self._managed = opened, None
                    self._must_poll.set()
                    while self._settings == settings:
                        count = _run_in(self._importer, opened.import_some)
                        pause_s, self._reason = RETRY_S, ""
                        if not count:
                            self._is_imported.set()
                            self._must_import.wait(IMPORT_S)
                            self._must_import.clear()
                finally:
                    self._opened = None
                    # A connection that a thread still uses would stay open. Without a database no
                    # thread has one, and the next attempt need not wait.
                    with suppress(gevent.Timeout), gevent.Timeout(CLOSE_S):
                        self._importer.join()
                        if used:
                            self._askers.join()
                    for each in used:
                        _run_in(self._importer, each.close)
            except Exception as error:  # whatever a database raises; it is tried again
                self._reason = _describe(error)
                self._must_poll.set()
                gevent.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RETRY_S)

    def _open(self, settings: Frame, used: list[Opened]) -> None:
        """Opens the database and appends it to `used`, so that it is closed even if the greenlet
        that opens it is killed meanwhile."""
        used.append(self._open_records(self._directory, settings))

    def _keep_polling(self) -> None:
        """Tells the workers what has changed."""
        while True:
            known = self._managed and self._managed["revision"]
            if self._opened is not None:
                try:
                    if managed := _run_in(self._askers, self._opened.read_managed, known):
                        self._managed = {"op": "managed", **managed}
                        self._push(self._managed)
                except RecordsUnavailable:
                    pass  # the import reports it
                except Exception as error:  # a fault of this program; the next poll may do better
                    sys.stderr.write(
                        f"ollama-proxy coordinator: keys could not be reported: {error!r}\n"
                    )
            spool_bytes = _run_in(self._askers, measure_spool, self._directory)
            problems = []
            if self._reason:
                what = Translatable(
                    "usage is not recorded now, but later: %(reason)s", reason=self._reason
                )
                problems.append(
                    {
                        "what": what,
                        "mend": Translatable("start the database, or correct records.url"),
                    }
                )
            if spool_bytes > FULL_BYTES:
                what = Translatable(
                    "%(waiting)s MiB wait to be recorded, and beyond %(limit)s MiB usage is lost",
                    waiting=spool_bytes >> 20,
                    limit=MAX_BYTES >> 20,
                )
                problems.append(
                    {"what": what, "mend": Translatable("see why the database can't be used")}
                )
            state: Frame = {
                "op": "records_state",
                "is_available": not self._reason,
                "reason": self._reason,
            }
            listed = [
                {key: text_to_json(text) for key, text in problem.items()} for problem in problems
            ]
            state |= {"problems": listed, "spool_bytes": spool_bytes}
            if state != self._state:
                self._state = state
                self._push(state)
            self._must_poll.wait(POLL_S)
            self._must_poll.clear()

    def _keep_tidy(self) -> None:
        """Removes old rows, soon after the start and then every hour."""
        while True:
            if self._opened is None:
                gevent.sleep(RETRY_S)
                continue
            with suppress(Exception):  # the import reports it
                _run_in(self._askers, self._opened.tidy)
            gevent.sleep(TIDY_S)

    def _answer(self, call: str, arguments: Frame, reply: Send) -> None:
        try:
            if self._opened is None:
                raise RecordsUnavailable(detail=self._reason)
            with gevent.Timeout(ANSWER_S, RecordsUnavailable(detail="it takes too long")):
                result = _run_in(self._askers, self._opened.call, call, arguments)
            reply({"result": result})
        except GatewayError as error:
            message = text_to_json(error.text)
            reply(
                {
                    "error": {
                        "slug": error.slug,
                        "status": error.status,
                        "message": message,
                        "param": error.param,
                    }
                }
            )
        except Exception as error:  # a fault of this program; who has asked must not wait for ever
            sys.stderr.write(f"ollama-proxy coordinator: {call} failed: {error!r}\n")
            message = text_to_json(InternalError.text)
            reply(
                {
                    "error": {
                        "slug": InternalError.slug,
                        "status": InternalError.status,
                        "message": message,
                    }
                }
            )
        self._must_poll.set()


def measure_spool(directory: Path) -> int:
    """Bytes of what workers have written and nobody has removed yet."""
    with suppress(OSError):  # there is none, or a file was removed meanwhile
        return sum(each.stat().st_size for each in os.scandir(directory / SPOOL_DIRECTORY))
    return 0


def _describe(error: Exception) -> str:
    """An error on one line, without values."""
    if isinstance(error, GatewayError):
        return error.detail or str(error)
    return str(error) if isinstance(error, ConfigError | OSError) else repr(error)


def _run_in(pool: ThreadPool, function: Callable[..., T], *arguments: Any) -> T:
    """Runs a function in a thread."""

    def run() -> tuple[T | None, Exception | None]:
        """Returns an error instead of raising it: gevent would print it."""
        try:
            return function(*arguments), None
        except Exception as error:  # raised in the event loop
            return None, error

    result, error = pool.apply(run)
    if error is not None:
        raise error
    return cast("T", result)
