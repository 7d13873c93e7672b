"""Pages of an application in this process whose operator need not sign in, on
records with a few rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from werkzeug.test import TestResponse

from ollama_proxy.records.database import write
from ollama_proxy.records.tables import usage, usage_hourly
from tests.rig.in_process import InProcess, in_process
from tests.rig.in_process_records import InProcessRecords

#: Noon of a day.
NOON = round(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000
#: What a browser would take for a part of the page.
CANARY = "<script>alert(1)</script>"


@contextmanager
def open_app(
    records: InProcessRecords | None, directory: Path, /, **config: Any
) -> Iterator[InProcess]:
    """`records` None: nothing is recorded."""
    given: dict[str, Any] = {"auth": {"enabled": False}, "server": {"host": "127.0.0.1"}}
    given |= {"upstreams": [{"name": "demo", "kind": "demo"}], **config}
    with in_process(coordinator=records, session_directory=directory / "sessions", **given) as app:
        yield app


def get(app: InProcess, path: str, **headers: str) -> TestResponse:
    """A page."""
    return app.ask("GET", path, token=None, **headers)


def add_hours(records: InProcessRecords, *rows: dict[str, Any]) -> None:
    """Sums of an hour each; what a row does not say is that of one request."""
    usual: dict[str, Any] = {
        "hour": NOON,
        "token": "web",
        "user": "",
        "model": "demo",
        "upstream": "demo",
    }
    usual |= {
        "dialect": "openai",
        "requests": 1,
        "errors": 0,
        "prompt_tokens": 10,
        "cached_tokens": 0,
    }
    usual |= {"completion_tokens": 5, "gpu_seconds": 1.5, "cost": 0.25}
    with write(records.engine) as connection:
        connection.execute(insert(usage_hourly), [usual | row for row in rows])


def make_request(number: int = 0, **fields: Any) -> dict[str, Any]:
    """A row of `usage`; what `fields` do not say is that of a request that went well."""
    texts = dict.fromkeys("user trusted_user error".split(), "")
    attempt = {
        "upstream": "demo",
        "state": "ok",
        "error": "",
        "started_ms": 1.0,
        "total_ms": 99.0,
        "gpu_ms": 50.0,
    }
    made = {
        **texts,
        "row_id": f"{NOON + number:012x}00",
        "id": f"request-{number}",
        "started_at": NOON + number,
        "token": "web",
        "dialect": "openai",
        "route": "/v1/chat/completions",
        "method": "POST",
        "model": "demo",
        "is_known_model": True,
        "target": "demo",
        "upstream": "demo",
        "attempts": [attempt | {"load_ms": None}],
        "stream": True,
        "status": 200,
        "state": "ok",
        "prompt_tokens": 1234,
        "cached_tokens": 0,
        "completion_tokens": 56,
        "estimated": False,
        "queue_ms": None,
        "load_ms": None,
        "first_byte_ms": 20.0,
        "total_ms": 100.0,
        "gpu_ms": 50.0,
        "cost": 0.5,
        "bytes": 7000,
    }
    return made | fields


def add_requests(records: InProcessRecords, *rows: dict[str, Any]) -> None:
    """Single requests."""
    stored = [row | {"attempts": json.dumps(row["attempts"])} for row in rows]
    with write(records.engine) as connection:
        connection.execute(insert(usage), stored)
