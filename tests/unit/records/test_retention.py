"""Old rows go in small transactions, sums stay longer, and a clock that jumps deletes nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, func, select, update

from ollama_proxy.records import database, retention
from ollama_proxy.records.importer import Importer
from ollama_proxy.records.retention import delete_old
from ollama_proxy.records.tables import audit, meta, spool_positions, usage, usage_hourly
from tests.rig.worker_spool import WorkerSpool

DAY_S = 86_400.0


def count(engine: Engine, table: Table) -> int:
    with database.read(engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def read_meta(engine: Engine) -> Any:
    with database.read(engine) as connection:
        return connection.execute(select(meta)).one()


@pytest.fixture
def aged(engine: Engine, tmp_path: Path) -> Engine:
    """A row, a sum and an audit entry of today, of 100 days ago and of 900 days ago, a
    thousand rows of the oldest."""
    worker, now = WorkerSpool(tmp_path), time.time()
    for number, days in enumerate((0, 100, *[900] * 1000)):
        worker.end(number, started_at=now - days * DAY_S)
    worker.close()
    importer = Importer(engine, tmp_path)
    while importer.step():
        pass
    entry = {"actor": "cli:root", "address": "", "action": "create", "subject": "tokens.a"}
    with database.write(engine) as connection:
        days_ago = [{"at": int((now - days * DAY_S) * 1000), **entry} for days in (0, 100, 900)]
        connection.execute(audit.insert(), days_ago)
    return engine


def test_rows_go_after_the_retention_and_sums_after_800_days(aged: Engine) -> None:
    assert [count(aged, table) for table in (usage, usage_hourly, audit)] == [1002, 3, 3]
    assert delete_old(aged, 90, sleep=lambda _s: None) == 1001 + 1 + 1
    assert [count(aged, table) for table in (usage, usage_hourly, audit)] == [1, 2, 2]
    kept_s = time.time() - read_meta(aged).rows_since / 1000
    assert kept_s == pytest.approx(90 * DAY_S, abs=60)
    # A longer retention brings nothing back.
    assert delete_old(aged, 36_500, sleep=lambda _s: None) == 0
    assert time.time() - read_meta(aged).rows_since / 1000 == pytest.approx(90 * DAY_S, abs=60)


def test_transactions_are_small_and_writers_get_their_turn(
    aged: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, pauses, real = [], [], database.write

    def measure(engine: Engine) -> Any:
        """Counts the rows before each transaction."""
        sizes.append(count(engine, usage))
        return real(engine)

    monkeypatch.setattr(retention, "write", measure)
    monkeypatch.setattr(retention, "MAX_ROWS", 150)
    delete_old(aged, 90, sleep=pauses.append)
    deleted = [before - after for before, after in zip(sizes[1:], [*sizes[2:], 1], strict=True)]
    assert 10 <= max(deleted) <= 150 and min(pauses) >= retention.PAUSE_S
    assert len(pauses) >= 7


def test_positions_of_finished_files_are_forgotten_at_last(aged: Engine) -> None:
    long_ago = int((time.time() - 900 * DAY_S) * 1000)
    with database.write(aged) as connection:
        connection.execute(update(spool_positions).values(imported_at=long_ago))
        unfinished = {
            "file": "worker9.1",
            "position": 5,
            "damaged": 0,
            "imported_at": long_ago,
            "is_finished": False,
        }
        connection.execute(spool_positions.insert(), unfinished)
    assert count(aged, spool_positions) == 2
    delete_old(aged, 90, sleep=lambda _s: None)
    with database.read(aged) as connection:
        assert connection.scalars(select(spool_positions.c.file)).all() == ["worker9.1"]


def test_clock_that_jumps_ahead_deletes_nothing_at_first(
    aged: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_old(aged, 90, sleep=lambda _s: None)
    now = time.time()
    for jump_s, deleted in ((10 * 365 * DAY_S, 0), (0.0, 0), (-DAY_S, 0), (6 * DAY_S, 0)):
        monkeypatch.setattr(time, "time", lambda ahead_s=jump_s: now + ahead_s)
        assert delete_old(aged, 90, sleep=lambda _s: None) == deleted
    assert count(aged, usage) == 1
    for deleted in (0, 3):  # the clock stays there: a gateway that was off for long
        monkeypatch.setattr(time, "time", lambda: now + 850 * DAY_S)
        assert delete_old(aged, 90, sleep=lambda _s: None) >= deleted
    assert count(aged, usage) == 0
