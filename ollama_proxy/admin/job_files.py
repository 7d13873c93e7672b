"""Jobs on models as files, one each, that all workers of a machine read: what runs, how far
it has come, how it ended.

Only the worker that runs a job writes its file; another one that wants it to end
leaves a mark beside it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from ollama_proxy.settings import write_private
from ollama_proxy.texts import text_from_json, text_to_json

#: Seconds without a sign of life after which the worker of a job is gone.
SILENT_S = 8.0

#: Seconds for which a job that has ended is shown, and the most that are.
KEPT_S, MOST_KEPT = 24 * 3600.0, 50

JobKind = Literal["pull", "create", "copy", "load", "unload", "delete"]
State = Literal["running", "done", "failed", "cancelled", "interrupted"]

_ID = re.compile(r"[0-9a-f]{16}")
_SUFFIX, _MARK = ".json", ".end"


@dataclass(slots=True)
class Job:
    """Work on one model of one Ollama server."""

    kind: JobKind
    box: str
    model: str
    #: Name of the token that began it.
    by: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    #: In seconds since 1970.
    started_s: float = field(default_factory=time.time)
    ended_s: float | None = None
    state: State = "running"
    #: What Ollama says that it does.
    status: str = ""
    error: str = ""
    #: Of all layers of a pull so far, in bytes; how many of them come in a second;
    #: 0 and None: not known.
    completed: int = 0
    total: int = 0
    rate: float | None = None
    #: For `copy`: the new name.
    new_name: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"

    @property
    def left_s(self) -> float | None:
        """Seconds until all bytes are there, at the present rate; None: not known."""
        return (
            (self.total - self.completed) / self.rate
            if self.rate and self.total > self.completed
            else None
        )


@dataclass(frozen=True, slots=True)
class JobStore:
    """The files of all jobs."""

    #: It is created, for its owner only, with the first job.
    _directory: Path

    def save(self, job: Job) -> None:
        """Writes a job down, which also shows that its worker is alive. Raises OSError."""
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(
            self._directory / f"{job.id}{_SUFFIX}",
            orjson.dumps(asdict(job) | {"error": text_to_json(job.error)}),
        )

    def list(self) -> list[Job]:
        """All jobs, those that run first, then the newest; those that have ended
        long ago are removed."""
        paths: Sequence[Path] = ()
        with suppress(OSError):
            paths = tuple(self._directory.glob(f"*{_SUFFIX}"))
        jobs = [job for path in paths if (job := self._read(path)) is not None]
        jobs.sort(key=lambda job: (job.is_running, job.started_s), reverse=True)
        ended = [job for job in jobs if not job.is_running]
        old = [
            job
            for number, job in enumerate(ended)
            if number >= MOST_KEPT or time.time() - (job.ended_s or job.started_s) > KEPT_S
        ]
        for job in old:
            self.remove(job)
        return [job for job in jobs if job not in old]

    def find(self, job_id: str) -> Job | None:
        """The job with this id; None: there is none."""
        return self._read(self._directory / f"{job_id}{_SUFFIX}") if _ID.fullmatch(job_id) else None

    def remove(self, job: Job) -> None:
        """Forgets a job that has ended."""
        for suffix in (_SUFFIX, _MARK):
            with suppress(OSError):
                (self._directory / f"{job.id}{suffix}").unlink()

    def ask_to_end(self, job: Job) -> None:
        """Tells the worker of a job to end it; it looks once a second. Raises OSError."""
        (self._directory / f"{job.id}{_MARK}").touch(mode=0o600)

    def should_end(self, job: Job) -> bool:
        """Whether somebody wants it to end."""
        return (self._directory / f"{job.id}{_MARK}").exists()

    def _read(self, path: Path) -> Job | None:
        try:
            written_s = path.stat().st_mtime
            job = Job(**orjson.loads(path.read_bytes()))
            job.error = text_from_json(job.error)
        except (OSError, ValueError, TypeError, KeyError):  # removed, or of another version
            return None
        if job.is_running and time.time() - written_s > SILENT_S:
            job.state, job.ended_s = "interrupted", written_s
        return job
