"""The files of counts, in the format of prometheus_client: one for each worker and kind of metric.

A worker writes its values into the memory of these files; a scrape reads the files of all workers.
The counts of workers that have ended are added up in files of their own, so that no count is lost
and their number does not grow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ollama_proxy.telemetry.metrics_directory import locked

#: Kinds whose values outlive their worker.
COUNTER, HISTOGRAM = "counter", "histogram"

#: How the gauges of several workers become one: only of workers that live.
SUM, HIGHEST, LOWEST = "gauge_livesum", "gauge_livemax", "gauge_livemin"

#: Stands for the workers that have ended.
ENDED = 0

#: The least room that a file has for a new series, and the size that it begins with; in
#: bytes. The longest series, a histogram of a model whose name has MAX_NAME_CHARS letters,
#: takes less than that.
ROOM_BYTES, FIRST_BYTES = 32 << 10, 64 << 10

#: Longest name of a model, in characters.
MAX_NAME_CHARS = 200


class MetricsFiles:
    """The files of one worker."""

    def __init__(self, directory: Path, owner: int) -> None:
        """`owner`: the process id of the worker, or ENDED."""
        self._directory, self._owner = directory, owner
        self._files: dict[str, MmapedDict] = {}
        #: Sizes of the files for which there is memory.
        self._sizes: dict[str, int] = {}

    def open(self) -> None:
        """Opens all of them now; raises OSError if there is no room."""
        for kind in (COUNTER, HISTOGRAM, SUM, HIGHEST, LOWEST):
            self.make_room(kind)

    def make_room(self, kind: str, room_bytes: int = ROOM_BYTES) -> None:
        """Makes room for one more series; raises OSError if there is none. Without that, writing to
        a file for which there is no memory would kill the process."""
        path = self._path(kind)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            used = int.from_bytes(os.pread(descriptor, 4, 0), sys.byteorder)
            size = self._sizes.get(kind) or max(FIRST_BYTES, os.fstat(descriptor).st_size)
            while used + room_bytes > size:
                size *= 2
            if size != self._sizes.get(kind):
                os.posix_fallocate(descriptor, 0, size)
                self._sizes[kind] = size
        finally:
            os.close(descriptor)
        if kind not in self._files:
            self._files[kind] = MmapedDict(str(path))  # type: ignore[no-untyped-call]  # the library's

    def write(self, kind: str, key: str, value: float) -> None:
        """Writes a value; for a new key there must be room."""
        self._files[kind].write_value(key, value, 0.0)  # type: ignore[no-untyped-call]  # the library's

    def add(self, kind: str, key: str, value: float) -> None:
        """Adds to a value; for a new key there must be room."""
        before, _ = self._files[kind].read_value(key)  # type: ignore[no-untyped-call]  # the library's
        self.write(kind, key, before + value)

    def close(self) -> None:
        """Closes the files, which stay."""
        while self._files:
            self._files.popitem()[1].close()  # type: ignore[no-untyped-call]  # the library's

    def _path(self, kind: str) -> Path:
        return self._directory / f"{kind}_{self._owner}.db"


def read_metrics(directory: Path) -> Iterable[Metric]:
    """The values of all workers together."""
    with locked(directory, LOCK_SH):
        paths = [str(path) for path in sorted(directory.glob("*.db"))]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(paths)  # type: ignore[no-untyped-call]  # the library's
        return metrics


def retire(directory: Path, running: Collection[int]) -> None:
    """In the master, after a worker has ended: keeps the counts of workers that do not run any
    more, and removes their gauges. A scrape that goes on meanwhile is not waited for: then the
    counts stay where they are until the next worker ends. Raises OSError."""
    ended = {int(path.stem.rpartition("_")[2]) for path in directory.glob("*.db")} - {
        ENDED,
        *running,
    }
    for pid in ended:
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]  # the library's
    with suppress(BlockingIOError), locked(directory, LOCK_EX | LOCK_NB):
        kept = (
            (kind, directory / f"{kind}_{pid}.db") for pid in ended for kind in (COUNTER, HISTOGRAM)
        )
        left = [(kind, path) for kind, path in kept if path.exists()]
        files = MetricsFiles(directory, ENDED)
        try:
            for kind, path in left:
                files.make_room(kind, path.stat().st_size)
                for key, value, _, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]  # the library's
                    files.add(kind, key, value)
                path.unlink()
        finally:
            files.close()
