"""Checks the records: whether the database is sound, whether the sums are those of the rows, and
what waits in the spool."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, case, func, literal, select

from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.records.database import check_schema, is_damage, read
from ollama_proxy.records.spool import SPOOL_DIRECTORY
from ollama_proxy.records.spool_files import list_spool
from ollama_proxy.records.tables import (
    GOOD_STATES,
    meta,
    spool_positions,
    usage,
    usage_hourly,
    usage_open,
)

#: Most differences that are listed.
MAX_LISTED = 20

_HOUR_MS = 3_600_000

_KEYS = ("token", "user", "model", "upstream", "dialect")
_SUMS = (
    "requests",
    "errors",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "gpu_seconds",
    "cost",
)

#: Sums, in the order of `_SUMS`, by key.
Totals = dict[tuple[str, ...], list[Any]]


@dataclass(slots=True)
class Report:
    """What was found, one line each; any problem is a reason to look closer."""

    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_records(engine: Engine, directory: Path) -> Report:
    """Checks everything in one state of the database, while the gateway goes on. `directory`: the
    state directory. Raises ConfigError and RecordsUnavailable."""
    report = Report()
    damage = find_damage(engine) if engine.dialect.name == "sqlite" else []
    if damage:
        report.problems += [f"the file is damaged: {line}" for line in damage[:MAX_LISTED]]
        return report
    with read(engine) as connection:
        check_schema(connection)
        start = find_first_hour(connection)
        of_rows = add_up_rows(connection, start)
        of_hours = _group(connection, select(usage_hourly).where(usage_hourly.c.hour >= start))
        keys = sorted(of_rows.keys() | of_hours.keys())
        count = connection.execute(select(func.count()).select_from(usage)).scalar_one()
        report.facts.append(f"{count} rows; their sums are compared by {len(keys)} keys")
        nothing = [0] * len(_SUMS)
        different = [
            (
                f"{dict(zip(_KEYS, key, strict=True))}: {name} is {is_sum} in the sums and "
                f"{of_row} in the rows"
            )
            for key in keys
            for name, of_row, is_sum in zip(
                _SUMS, of_rows.get(key, nothing), of_hours.get(key, nothing), strict=True
            )
            # Amounts are added in another order, so their last digits may differ.
            if not math.isclose(float(of_row), float(is_sum), rel_tol=1e-9, abs_tol=1e-6)
        ]
        report.problems += different[:MAX_LISTED]
        if len(different) > MAX_LISTED:
            report.problems.append(f"{len(different) - MAX_LISTED} further differences")
        _check_spool(connection, directory, report)
    return report


def find_damage(engine: Engine) -> list[str]:
    """What SQLite finds in its file; some damage ends its search. Raises RecordsUnavailable."""
    found: list[str] = []
    try:
        with read(engine) as connection:
            found += connection.exec_driver_sql("PRAGMA integrity_check").scalars()
    except RecordsUnavailable as error:
        if not is_damage(error.__cause__):
            raise
        found.append(error.detail)
    return [line for line in found if line != "ok"]


def find_first_hour(connection: Connection) -> int:
    """An instant from which on all rows and their sums are kept, and at which
    no hour is cut in two."""
    rows_since = connection.execute(select(meta.c.rows_since)).scalar_one()
    first_sum = select(func.min(usage_hourly.c.hour)).where(usage_hourly.c.hour >= rows_since)
    first_row = select(func.min(usage.c.started_at)).where(
        usage.c.started_at >= rows_since + _HOUR_MS
    )
    starts = [connection.execute(first).scalar() for first in (first_sum, first_row)]
    return min((each for each in starts if each is not None), default=0)


def add_up_rows(connection: Connection, start: int) -> Totals:
    """The sums of rows, as they should be."""
    known_model = case((usage.c.is_known_model, usage.c.model), else_="")
    keys = (usage.c.token, usage.c.trusted_user, known_model, usage.c.upstream, usage.c.dialect)
    return _group(
        connection,
        select(
            *(key.label(name) for key, name in zip(keys, _KEYS, strict=True)),
            literal(1).label("requests"),
            case((usage.c.state.in_(GOOD_STATES), 0), else_=1).label("errors"),
            *(
                usage.c[name]
                for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cost")
            ),
            (usage.c.gpu_ms / 1000).label("gpu_seconds"),
        ).where(usage.c.started_at >= start),
    )


def _group(connection: Connection, query: Select[Any]) -> Totals:
    # A subquery: PostgreSQL does not see that two equal expressions with parameters are one.
    table = query.subquery()
    keys = [table.c[name] for name in _KEYS]
    found = connection.execute(
        select(*keys, *(func.sum(table.c[name]) for name in _SUMS)).group_by(*keys)
    )
    return {tuple(row[: len(_KEYS)]): [value or 0 for value in row[len(_KEYS) :]] for row in found}


def _check_spool(connection: Connection, directory: Path, report: Report) -> None:
    at = spool_positions.c
    files = list_spool(directory / SPOOL_DIRECTORY)
    query = select(at.file, at.position).where(at.file.in_([file.name for file in files]))
    positions = {name: position for name, position in connection.execute(query)}
    sizes = {
        file.name: file.path.stat().st_size
        for file in files
        if not file.is_compressed and file.path.exists()
    }
    waiting = sum(max(0, size - positions.get(name, 0)) for name, size in sizes.items())
    packed = sum(file.is_compressed for file in files)
    report.facts.append(
        f"spool: {len(files)} files, {packed} of them compressed; {waiting} bytes are not imported yet"
    )
    opened = connection.execute(select(func.count()).select_from(usage_open)).scalar_one()
    report.facts.append(f"{opened} exchanges have begun and not ended")
    damaged = connection.execute(select(func.sum(at.damaged))).scalar() or 0
    if damaged:
        report.facts.append(f"{damaged} lines of the spool could not be read, and were skipped")
