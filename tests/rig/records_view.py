"""What is in a gateway's records, read by the drivers themselves while the gateway runs; and a box
whose answers have tokens that a test knows.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Engine

from tests.rig import SeenRequest
from tests.rig.boxes import PROMPTS, Box, canonical
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json, Lines, Script
from tests.rig.gateway import Gateway
from tests.rig.in_process_records import open_records
from tests.rig.numbered_requests import NumberedClient

Row = dict[str, Any]

_COUNTED = ("prompt", "cached", "completion")
_STAMP = "2026-01-01T00:00:00Z"


@contextmanager
def new_records(url: str, directory: Path) -> Iterator[Engine]:
    """The new database at this address, with its tables."""
    engine = open_records(url, directory)
    try:
        yield engine
    finally:
        engine.dispose()


class Tokens(NamedTuple):
    """Of a request: its prompt and its answer."""

    prompt: int
    completion: int


def tokens_of(number: int) -> Tokens:
    """What a CountingBox says that the request with this number took."""
    return Tokens(100 + number % 97, 1 + number % 13)


class CountingBox(Box):
    """An Ollama server that answers a prompt with `request N` in it by a stream of some lines, with
    the tokens of `tokens_of(N)`, and notes each N that it got."""

    def __init__(self, name: str, models: list[str], *, line_s: float = 0.0) -> None:
        """`line_s`: the pause between two lines."""
        super().__init__(name, models)
        self.line_s = line_s
        self.numbers: set[int] = set()

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would."""
        found = re.search(rb"request (\d+)", request.body)
        if found is None or request.path not in PROMPTS:
            return super().answer(request)
        number, body = int(found[1]), request.json()
        if canonical(str(body["model"])) not in map(canonical, self.models):
            return super().answer(request)
        self.numbers.add(number)
        tokens = tokens_of(number)
        frame: Row = {"model": body["model"], "created_at": _STAMP}
        durations = {
            "load_duration": 0,
            "prompt_eval_duration": 2_000_000,
            "eval_duration": 3_000_000,
        }
        end = {"prompt_eval_count": tokens.prompt, **durations, "total_duration": 5_000_000}
        if request.path == "/api/embed":
            return [Json(frame | end | {"embeddings": [[0.5, 0.25]]})]
        said = "Yes. "
        text: Row = {"message": {"role": "assistant", "content": said}}
        text = text if request.path == "/api/chat" else {"response": said}
        last = (
            frame
            | text
            | end
            | {"done": True, "done_reason": "stop", "eval_count": tokens.completion}
        )
        if body.get("stream") is False:
            return [Json(last)]
        return [Lines([*[frame | text | {"done": False}] * 4, last], delay_s=self.line_s)]


class RecordsView:
    """The database of a gateway's records."""

    def __init__(self, gateway: Gateway, url: str, ids: str = "") -> None:
        """`url`: its `records.url`; that of SQLite in the state directory. `ids`: how the ids of
        the requests begin whose rows are looked at."""
        self._ids = ids
        self._path = (
            gateway.state_directory / url.rpartition("/")[2] if url.startswith("sqlite:") else None
        )
        self._url = url
        self._spool = gateway.state_directory / "usage"

    def select(self, query: str) -> list[Row]:
        """The rows of a query."""
        if self._path is None:
            with psycopg.connect(self._url, connect_timeout=5, row_factory=dict_row) as connection:
                return list(connection.execute(query.encode()))
        with closing(
            sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=10)
        ) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query)]

    def rows(self) -> list[Row]:
        """The rows of `usage`."""
        return [
            row
            for row in self.select("SELECT * FROM usage ORDER BY row_id")
            if row["id"].startswith(self._ids)
        ]

    def sums(self) -> Row:
        """The sums of all hours together."""
        names = (
            "requests",
            "errors",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "gpu_seconds",
            "cost",
        )
        columns = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in names)
        (row,) = self.select(f"SELECT {columns} FROM usage_hourly")
        return {name: float(value) for name, value in row.items()}

    def wait_for(self, is_right: Callable[[list[Row]], object], seconds: float = 20) -> list[Row]:
        """The rows, as soon as they are right."""
        seen: list[Row] = []

        def look() -> list[Row]:
            try:
                seen[:] = self.rows()
            except (sqlite3.Error, psycopg.Error):
                return []  # it is being created, or is away
            return seen if is_right(seen) else []

        return wait_until(look, seconds, lambda: f"{len(seen)} rows: {seen[-3:]}")

    def wait_until_complete(self, seconds: float = 30) -> list[Row]:
        """The rows, when everything is imported that was written, and nothing runs any more."""

        def is_complete() -> bool:
            try:
                read = {
                    row["file"]: row["position"]
                    for row in self.select("SELECT * FROM spool_positions")
                }
                is_open = self.select("SELECT row_id FROM usage_open")
                files = list(self._spool.iterdir()) if self._spool.is_dir() else []
                return not is_open and all(
                    read.get(file.name) == file.stat().st_size for file in files
                )
            except (sqlite3.Error, psycopg.Error, FileNotFoundError):
                return False  # the database is away, or a file was finished meanwhile

        wait_until(is_complete, seconds, self._explain)
        return self.rows()

    def _explain(self) -> str:
        """What is missing."""
        files = {file.name: file.stat().st_size for file in self._spool.iterdir()}
        return json.dumps(
            [
                files,
                self.select("SELECT * FROM spool_positions"),
                self.select("SELECT * FROM usage_open"),
            ]
        )


def sum_up(rows: list[Row]) -> Row:
    """What `sums` has to be for these rows."""
    return {
        "requests": len(rows),
        "errors": sum(row["state"] not in ("ok", "client_gone") for row in rows),
        **{f"{what}_tokens": sum(row[f"{what}_tokens"] or 0 for row in rows) for what in _COUNTED},
        "gpu_seconds": sum(row["gpu_ms"] or 0 for row in rows) / 1000,
        "cost": sum(row["cost"] or 0 for row in rows),
    }


def check_conservation(
    rows: list[Row], sums: Row, client: NumberedClient, box: CountingBox
) -> None:
    """Every admitted request has one row, and rows and sums have the tokens
    that the server counted."""
    ids = [int(row["id"].removeprefix("n")) for row in rows]
    assert len(ids) == len(set(ids)), "a request has two rows"
    assert not set(ids) - client.sent
    assert not box.numbers - set(ids), "the server had a request that has no row"
    assert not client.answered - set(ids), "an answered request has no row"
    for number, row in zip(ids, rows, strict=True):
        if number in client.answered:
            # Its worker may have been killed before it noted the end.
            assert row["state"] in ("ok", "lost"), row
        if row["state"] == "ok":
            tokens = tokens_of(number)
            is_embedding = row["route"].startswith(("/api/embed", "/v1/embeddings"))
            expected = (tokens.prompt, None if is_embedding else tokens.completion)
            assert (row["prompt_tokens"], row["completion_tokens"] or None) == expected, row
    assert sums == pytest.approx(sum_up(rows))
