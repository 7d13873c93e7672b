"""The spool of a worker, line by line as a test wants it, damaged ones included."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

#: The first instant of 2027, in milliseconds.
START_MS = 1_798_761_600_000


class WorkerSpool:
    """A worker that writes to `usage/` of a state directory, and holds the lock of its
    newest file until `close`."""

    def __init__(self, state: Path, worker: str = "worker1") -> None:
        self._directory, self.worker, self._number = state / "usage", worker, 0
        self._directory.mkdir(exist_ok=True, mode=0o700)
        self._descriptor = -1
        self.rotate()

    @property
    def path(self) -> Path:
        """Its newest file."""
        return self._directory / f"{self.worker}.{self._number}"

    def rotate(self) -> None:
        """Begins another file, and locks it before the last one is closed."""
        before, self._number = self._descriptor, self._number + 1
        self._descriptor = os.open(
            self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600
        )
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.write(b'{"spool":1}\n')
        if before >= 0:
            os.close(before)

    def write(self, data: bytes) -> None:
        """Appends bytes as they are."""
        os.write(self._descriptor, data)

    def begin(self, number: int, **fields: Any) -> str:
        """The begin line of an exchange; returns the id of its row."""
        begin = begin_fields(self.worker, number) | fields
        self.write(json.dumps({"begin": begin}).encode() + b"\n")
        return str(begin["row_id"])

    def end(self, number: int, **fields: Any) -> str:
        """The end line of an exchange; returns the id of its row."""
        end = end_fields(self.worker, number) | fields
        self.write(json.dumps({"end": end}).encode() + b"\n")
        return str(end["row_id"])

    def close(self) -> None:
        """The worker is gone."""
        os.close(self._descriptor)


def begin_fields(worker: str, number: int) -> dict[str, Any]:
    """What a begin line has; exchanges begin one second after the other."""
    started_ms = START_MS + 1000 * number
    return {
        "row_id": f"{started_ms:012x}{worker}{number:06x}",
        "id": f"req-{worker}-{number}",
        "started_at": started_ms / 1000,
        "token": "web-team",
        "user": "ada@example.org",
        "trusted_user": "",
        "dialect": "openai",
        "route": "/v1/chat/completions",
        "method": "POST",
    }


def end_fields(worker: str, number: int) -> dict[str, Any]:
    """What an end line has: 10 tokens of prompt, 4 of which were cached, 5 of answer, 0.25 s of GPU
    time and 0.5 of cost."""
    attempt = {
        "upstream": "box1",
        "state": "ok",
        "error": "",
        "started_ms": 0.5,
        "total_ms": 300.0,
        "gpu_ms": 250.0,
    }
    return begin_fields(worker, number) | {
        "client": "10.0.0.9",
        "path": "/v1/chat/completions",
        "model": "qwen3:8b",
        "is_known_model": True,
        "target": "qwen3:8b-q4",
        "upstream": "box1",
        "attempts": [attempt],
        "stream": True,
        "status": 200,
        "state": "ok",
        "error": "",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "cache_write_tokens": None,
        "completion_tokens": 5,
        "estimated": False,
        "queue_ms": None,
        "load_ms": None,
        "first_byte_ms": 20.5,
        "total_ms": 301.0,
        "gpu_ms": 250.0,
        "cost": 0.5,
        "bytes": 1234,
        "clamped": [],
        "truncated": [],
    }
