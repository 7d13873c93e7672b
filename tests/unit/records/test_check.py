"""The check finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from ollama_proxy.records import database
from ollama_proxy.records.check import check_records
from ollama_proxy.records.importer import Importer
from ollama_proxy.records.retention import delete_old
from ollama_proxy.records.tables import usage, usage_hourly
from tests.rig.worker_spool import START_MS, WorkerSpool, end_fields


@pytest.fixture
def used(engine: Engine, tmp_path: Path) -> Engine:
    """Exchanges of three hours, models and outcomes; one has not ended, and one line is damaged."""
    worker = WorkerSpool(tmp_path)
    for number in range(60):
        fields: dict[str, Any] = {
            "model": f"model{number % 3}",
            "started_at": START_MS / 1000 + number * 180,
        }
        fields |= {
            "state": "timeout" if number % 7 == 0 else "ok",
            "gpu_ms": 0.1 * number,
            "cost": number / 3,
        }
        worker.end(
            number,
            is_known_model=number % 5 != 0,
            trusted_user="ada" if number % 2 else "",
            **fields,
        )
    worker.begin(100)
    worker.write(b"garbage\n")
    importer = Importer(engine, tmp_path)
    while importer.step():
        pass
    worker.end(101)
    worker.rotate()
    worker.close()
    return engine


def test_sound_records_have_no_problems(used: Engine, tmp_path: Path) -> None:
    report = check_records(used, tmp_path)
    assert report.problems == []
    assert "60 rows" in report.facts[0]
    waiting = (tmp_path / "usage" / "worker1.1").stat().st_size + len(b'{"spool":1}\n')
    with database.read(used) as connection:
        waiting -= connection.exec_driver_sql("SELECT position FROM spool_positions").scalar_one()
    assert report.facts[1:] == [
        f"spool: 2 files, 0 of them compressed; {waiting} bytes are not imported yet",
        "1 exchanges have begun and not ended",
        "1 lines of the spool could not be read, and were skipped",
    ]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (delete(usage).where(usage.c.cost == 1.0), "requests is"),
        (delete(usage_hourly).where(usage_hourly.c.model == "model1"), "'model': 'model1'"),
        (delete(usage_hourly).where(usage_hourly.c.hour == START_MS), "requests is 4 in the sums"),
        (delete(usage_hourly), "requests is 0 in the sums"),
        (update(usage).where(usage.c.cost == 1.0).values(cost=1.001), "cost is"),
        (update(usage).where(usage.c.cost == 1.0).values(state="aborted"), "errors is"),
        (
            update(usage_hourly).values(completion_tokens=usage_hourly.c.completion_tokens * 2),
            "completion_tokens is",
        ),
    ],
)
def test_sums_that_are_not_those_of_the_rows_are_a_problem(
    spoil: Any, found: str, used: Engine, tmp_path: Path
) -> None:
    with database.write(used) as connection:
        connection.execute(spoil)
    problems = check_records(used, tmp_path).problems
    assert problems and any(found in problem for problem in problems)


def test_rows_that_the_retention_has_deleted_are_no_problem(engine: Engine, tmp_path: Path) -> None:
    worker, now = WorkerSpool(tmp_path), time.time()
    for number in range(200):
        worker.end(number, started_at=now - number * 600)
    worker.close()
    importer = Importer(engine, tmp_path)
    while importer.step():
        pass
    assert delete_old(engine, 1, sleep=lambda _s: None) > 0
    report = check_records(engine, tmp_path)
    assert report.problems == [] and "by 1 keys" in report.facts[0]
    with database.write(engine) as connection:
        connection.execute(
            delete(usage).where(usage.c.row_id == end_fields("worker1", 3)["row_id"])
        )
    assert len(check_records(engine, tmp_path).problems) > 0


def test_empty_records_have_no_problems(engine: Engine, tmp_path: Path) -> None:
    assert check_records(engine, tmp_path).problems == []


def test_many_differences_are_counted(engine: Engine, tmp_path: Path) -> None:
    worker = WorkerSpool(tmp_path)
    for number in range(30):
        worker.end(number, model=f"model{number}")
    worker.close()
    Importer(engine, tmp_path).step()
    with database.write(engine) as connection:
        connection.execute(delete(usage_hourly))
    assert check_records(engine, tmp_path).problems[-1] == "160 further differences"


def test_damaged_file_is_a_problem(tmp_path: Path) -> None:
    engine = database.open_database("sqlite:state/records.db", tmp_path)
    database.upgrade(engine)
    worker = WorkerSpool(tmp_path)
    for number in range(500):
        worker.end(number)
    worker.close()
    Importer(engine, tmp_path).step()
    engine.dispose()
    path = tmp_path / "records.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xff" * 200
    path.write_bytes(data)
    assert any("damaged" in problem for problem in check_records(engine, tmp_path).problems)
    engine.dispose()
