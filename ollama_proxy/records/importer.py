"""Imports what workers have written to the spool: each exchange becomes one row, exactly once.

A batch of lines, its sums by hour and the positions up to which the files were read are one
transaction. So whatever is killed, and whenever, the next importer goes on where the last commit
ended. A file is deleted after the commit with its last line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import zstandard
from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.records.database import read, write
from ollama_proxy.records.rows import (
    HourlySums,
    Row,
    lost_row,
    read_row_id,
    read_started_at,
    usage_row,
)
from ollama_proxy.records.spool import SPOOL_DIRECTORY, SPOOL_VERSION
from ollama_proxy.records.spool_files import SpoolFile, list_spool
from ollama_proxy.records.tables import spool_positions, token_uses, usage, usage_hourly, usage_open
from ollama_proxy.settings import find_timezone

#: Most lines and bytes of a transaction.
MAX_LINES, MAX_BYTES = 2000, 2 << 20

#: Seconds after which an exchange is lost whose worker has no file here, and seconds between
#: two searches for these.
ABANDONED_S, SEARCH_S = 86_400.0, 3600.0

_SUM_KEYS = ("hour", "token", "user", "model", "upstream", "dialect")
_SUMS = [column.name for column in usage_hourly.columns if column.name not in _SUM_KEYS]


class _OutOfDate(Exception):
    """Somebody else has imported, or a backup was restored: the positions are not
    those of the database."""


@dataclass(slots=True)
class _Part:
    """What is imported of one file."""

    file: SpoolFile
    start: int
    end: int
    is_finished: bool
    damaged: int = 0


@dataclass(slots=True)
class _Batch:
    """What is imported in one transaction."""

    parts: list[_Part] = field(default_factory=list)
    #: Rows of `usage_open` and of `usage`, by id.
    begins: dict[str, Row] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    lines: int = 0
    size: int = 0
    #: Workers whose last file ends in this batch.
    gone: list[str] = field(default_factory=list)


class Importer:
    """Imports the spool of one state directory. One thread uses it."""

    def __init__(self, engine: Engine, directory: Path, timezone: str = "UTC") -> None:
        """`directory`: the state directory. Raises ValueError if the time zone is unknown."""
        self._engine = engine
        self._directory = directory / SPOOL_DIRECTORY
        self._sums = HourlySums(find_timezone(timezone))
        #: Of each file that is there: how much of it is in the database, and
        #: whether it may be deleted.
        self._positions: dict[str, tuple[int, bool]] = {}
        self._max_lines = MAX_LINES
        self._next_search_s = 0.0
        self._statements = _Statements(engine.dialect.name)
        #: Since this importer was made: rows, those among them of exchanges that were lost with
        #: their worker, and lines that could not be read.
        self.rows = self.lost = self.damaged = 0

    def step(self) -> int:
        """Imports the next lines; returns how many. 0: everything that was written is imported.

        Raises RecordsUnavailable if the database is; then nothing was imported, and a file
        that waits is compressed.
        """
        files = list_spool(self._directory)
        try:
            self._load_positions(files)
            batch = self._read_batch(files)
            if batch.parts:
                self._store(batch)
            elif time.monotonic() >= self._next_search_s:
                self._next_search_s = time.monotonic() + SEARCH_S
                self._store(self._find_abandoned(files))
        except RecordsUnavailable:
            self._positions.clear()
            with suppress(OSError):
                any(file.compress() for file in files)
            raise
        except _OutOfDate:
            self._positions.clear()
            return 0
        for part in batch.parts:
            self._positions[part.file.name] = part.end, part.is_finished
            if part.is_finished:
                part.file.delete()
        return batch.lines

    def _load_positions(self, files: Sequence[SpoolFile]) -> None:
        """Reads the positions of files that have appeared, and deletes files that had
        been finished before."""
        names = {file.name for file in files}
        for gone in self._positions.keys() - names:
            del self._positions[gone]
        new = sorted(names - self._positions.keys())
        if new:
            with read(self._engine) as connection:
                columns = spool_positions.c
                query = select(columns.file, columns.position, columns.is_finished)
                found = {
                    name: (at, done)
                    for name, at, done in connection.execute(query.where(columns.file.in_(new)))
                }
            self._positions.update((name, found.get(name, (0, False))) for name in new)
        for file in files:
            if self._positions[file.name][1]:
                file.delete()

    def _read_batch(self, files: Sequence[SpoolFile]) -> _Batch:
        batch = _Batch()
        for file in files:
            position, is_finished = self._positions[file.name]
            if not is_finished and batch.lines < self._max_lines and batch.size < MAX_BYTES:
                self._read_part(batch, file, position)
        ending = [part.file for part in batch.parts if part.is_finished]
        if ending:
            finished = {file.name for file in ending} | {
                name for name, (_, done) in self._positions.items() if done
            }
            # Listed anew: a worker that began another file while this one was read is not gone.
            going_on = {
                file.worker for file in list_spool(self._directory) if file.name not in finished
            }
            batch.gone = sorted({file.worker for file in ending} - going_on)
        return batch

    def _find_abandoned(self, files: Sequence[SpoolFile]) -> _Batch:
        """Exchanges that began long ago, and whose worker has no file here: a backup was restored
        that is older than the end of the import of these files, or the spool was deleted, or it was
        that of a machine that is gone."""
        batch = _Batch()
        before = int((time.time() - ABANDONED_S) * 1000)
        query = select(usage_open.c.row_id, usage_open.c.line).where(
            usage_open.c.started_at < before
        )
        query = query.where(usage_open.c.worker.not_in({file.worker for file in files})).limit(
            self._max_lines
        )
        with read(self._engine) as connection:
            found = connection.execute(query).all()
        batch.rows = {row_id: lost_row(orjson.loads(line)["begin"]) for row_id, line in found}
        return batch

    def _read_part(self, batch: _Batch, file: SpoolFile, position: int) -> None:
        # Asked before reading: what a closed file has is all that it will have.
        is_closed = file.is_closed()
        try:
            data = file.read(position, MAX_BYTES)
        except (OSError, zstandard.ZstdError):
            # It stays for somebody to look at, and the others are imported;
            # `records check` lists it.
            return
        is_whole = len(data) < MAX_BYTES
        *lines, rest = data.split(b"\n", self._max_lines - batch.lines)
        is_last = b"\n" not in rest and is_whole and is_closed
        if is_last and rest:
            lines.append(rest)
        elif not lines and not is_whole:
            lines.append(data)  # no line is that long
        end = position + min(sum(map(len, lines)) + len(lines), len(data))
        if end == position and not is_last:
            return
        part = _Part(file, position, end, is_last)
        for line in lines:
            self._read_line(batch, part, line)
        batch.parts.append(part)
        batch.lines += len(lines)
        batch.size += end - position

    def _read_line(self, batch: _Batch, part: _Part, line: bytes) -> None:
        """Adds what a line says to the batch."""
        try:
            document = orjson.loads(line)
            if begin := document.get("begin"):
                row_id, started_at = read_row_id(begin), read_started_at(begin)
                opened = {"row_id": row_id, "worker": part.file.worker, "started_at": started_at}
                batch.begins[row_id] = {**opened, "line": line.decode()}
            elif end := document.get("end"):
                row = usage_row(end)
                batch.rows[row["row_id"]] = row
            elif document.get("spool") != SPOOL_VERSION:
                raise ValueError("neither a begin line nor an end line")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            if line.strip():
                part.damaged += 1

    def _store(self, batch: _Batch) -> None:
        """The transaction. If the database refuses the values of a line, the lines are imported one
        by one, without that one."""
        try:
            with write(self._engine) as connection:
                self._store_positions(connection, batch.parts)
                lost = self._store_rows(connection, batch)
        except DBAPIError:
            if not batch.parts:
                raise
            if batch.lines > 1:
                self._max_lines = 1
                raise _OutOfDate from None
            batch.rows.clear()
            batch.begins.clear()
            batch.parts[0].damaged += 1
            with write(self._engine) as connection:
                self._store_positions(connection, batch.parts)
                lost = self._store_rows(connection, batch)
        self._max_lines = min(self._max_lines * 2, MAX_LINES)
        self.rows += len(batch.rows)
        self.lost += lost
        self.damaged += sum(part.damaged for part in batch.parts)

    def _store_positions(self, connection: Connection, parts: Sequence[_Part]) -> None:
        """Moves the positions; raises _OutOfDate unless they are where this
        importer believes them to be."""
        at, now = spool_positions.c, int(time.time() * 1000)
        for part in parts:
            is_there = (
                at.file == part.file.name,
                at.position == part.start,
                at.is_finished.is_(False),
            )
            values = {"position": part.end, "is_finished": part.is_finished, "imported_at": now}
            move = update(spool_positions).where(*is_there)
            moved = connection.execute(
                move.values(damaged=at.damaged + part.damaged, **values)
            ).rowcount
            if not moved and part.start == 0:
                added = {"file": part.file.name, "damaged": part.damaged, **values}
                moved = connection.execute(self._statements.add_position, added).rowcount
            if not moved:
                raise _OutOfDate

    def _store_rows(self, connection: Connection, batch: _Batch) -> int:
        """Stores the rows that are not there yet, and their sums; returns how many were
        lost with their worker."""
        opened = [begin for row_id, begin in batch.begins.items() if row_id not in batch.rows]
        if opened:
            connection.execute(self._statements.add_open, opened)
        ended = [row_id for row_id in batch.rows if row_id not in batch.begins]
        if batch.gone:
            query = select(usage_open.c.row_id, usage_open.c.line).where(
                usage_open.c.worker.in_(batch.gone)
            )
            found = {
                row_id: line
                for row_id, line in connection.execute(query)
                if row_id not in batch.rows
            }
            batch.rows.update(
                (row_id, lost_row(orjson.loads(line)["begin"])) for row_id, line in found.items()
            )
            ended += found
        if ended:
            connection.execute(delete(usage_open).where(usage_open.c.row_id.in_(ended)))
        if batch.rows:
            known = connection.scalars(
                select(usage.c.row_id).where(usage.c.row_id.in_(list(batch.rows)))
            )
            for row_id in known.all():
                del batch.rows[row_id]
        if batch.rows:
            rows = list(batch.rows.values())
            connection.execute(self._statements.add_rows, rows)
            connection.execute(self._statements.add_sums, self._sums.add_up(rows))
            connection.execute(self._statements.note_use, _last_uses(rows))
        return sum(row["state"] == "lost" for row in batch.rows.values())


def _last_uses(rows: Sequence[Row]) -> list[Row]:
    uses: dict[str, int] = {}
    for row in rows:
        uses[row["token"]] = max(row["started_at"], uses.get(row["token"], 0))
    return [{"token": token, "last_used": uses[token]} for token in sorted(uses)]


class _Statements:
    """Those of a transaction, in the database's own SQL."""

    def __init__(self, dialect: str) -> None:
        insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[dialect]
        self.add_position = insert(spool_positions).on_conflict_do_nothing()
        self.add_open = insert(usage_open).on_conflict_do_nothing()
        self.add_rows = insert(usage)
        sums = insert(usage_hourly)
        self.add_sums = sums.on_conflict_do_update(
            index_elements=_SUM_KEYS,
            set_={name: usage_hourly.c[name] + sums.excluded[name] for name in _SUMS},
        )
        use = insert(token_uses)
        self.note_use = use.on_conflict_do_update(
            index_elements=["token"],
            set_={"last_used": use.excluded.last_used},
            where=use.excluded.last_used > token_uses.c.last_used,
        )
