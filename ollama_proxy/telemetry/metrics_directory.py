"""The directory in which all workers of a master keep their counts, so that any
of them can add them up.

It is in memory: workers write there without waiting, and a slow disk would block them. It ends with
its master; what a killed one has left is removed by the next.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What the name of a directory begins with, also before it is locked.
PREFIX, NEW_PREFIX = "ollama-proxy-metrics-", "ollama-proxy-new-metrics-"


class MetricsDirectory:
    """The directory of one master and its workers, which inherit this object."""

    def __init__(self) -> None:
        #: None: there are no metrics.
        self.path: Path | None = None
        #: Why it could not be made; "" if it could, or was not tried.
        self.problem = ""
        #: A lock on it, which its workers inherit: it is in use as long as one of them lives.
        self._lock = -1
        self._owner = 0

    def open(self, base: str | None) -> None:
        """In the master: makes the directory below `base` (None: where temporary files are), unless
        there is one. If that fails, there are no metrics, and `problem` has the reason."""
        if self.path is not None:
            return
        try:
            parent = Path(base or tempfile.gettempdir())
            remove_unused(parent)
            fresh = Path(tempfile.mkdtemp(prefix=NEW_PREFIX, dir=parent))
            self._lock = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now can another master see it.
            self.path = fresh.rename(parent / fresh.name.replace(NEW_PREFIX, PREFIX))
            self._owner = os.getpid()
        except OSError as error:
            self.problem = error.strerror or type(error).__name__

    def retire(self, running: Collection[int]) -> None:
        """In the master, after a worker has ended: its counts stay, its gauges go.
        `running`: the other workers."""
        if self.path is not None:
            with suppress(Exception):  # the master must live
                importlib.import_module("ollama_proxy.telemetry.metrics_files").retire(
                    self.path, running
                )

    def close(self) -> None:
        """Removes the directory, in the process that made it."""
        if self.path is not None and self._owner == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self.path = None


def remove_unused(parent: Path) -> None:
    """Removes the directories of masters that are gone, with all of their workers."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or still in use
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


@contextmanager
def locked(directory: Path, operation: int) -> Iterator[None]:
    """Keeps others from reading the files of counts while they are moved (LOCK_EX), or from moving
    them while they are read (LOCK_SH). Raises BlockingIOError with LOCK_NB."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
