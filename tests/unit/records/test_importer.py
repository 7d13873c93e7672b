"""Every exchange becomes one row, with its sums, whatever order its lines come in and
whatever happens in between."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.records import database, importer
from ollama_proxy.records.importer import Importer
from ollama_proxy.records.tables import spool_positions, token_uses, usage, usage_hourly, usage_open
from tests.rig.worker_spool import START_MS, WorkerSpool


def rows(engine: Engine, *columns: str) -> list[Any]:
    """The rows in the order of their ids: the values of these columns."""
    with database.read(engine) as connection:
        found = connection.execute(
            select(*(usage.c[name] for name in columns)).order_by(usage.c.row_id)
        )
        return [row[0] if len(columns) == 1 else tuple(row) for row in found]


def total(engine: Engine, name: str) -> float:
    """The sum of a column of `usage_hourly`."""
    with database.read(engine) as connection:
        return float(connection.scalar(select(func.sum(usage_hourly.c[name]))) or 0)


def import_all(engine: Engine, state: Path) -> Importer:
    """A new importer, which has imported everything."""
    started = Importer(engine, state)
    while started.step():
        pass
    return started


def spool_names(state: Path) -> set[str]:
    return {path.name for path in (state / "usage").iterdir()}


def test_exchange_is_a_row_with_its_sums(engine: Engine, tmp_path: Path) -> None:
    worker = WorkerSpool(tmp_path)
    row_id = worker.begin(1)
    worker.end(1)
    started = Importer(engine, tmp_path)
    assert [started.step(), started.step(), started.rows] == [3, 0, 1]
    assert rows(engine, "row_id", "token", "state", "prompt_tokens") == [
        (row_id, "web-team", "ok", 10)
    ]
    with database.read(engine) as connection:
        assert connection.execute(select(usage_hourly)).all() == [
            (START_MS, "web-team", "", "qwen3:8b", "box1", "openai", 1, 0, 10, 4, 5, 0.25, 0.5)
        ]
        assert connection.execute(select(token_uses)).all() == [("web-team", START_MS + 1000)]
    worker.close()


def test_nothing_new_is_no_transaction(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = WorkerSpool(tmp_path)
    worker.begin(1)
    started = import_all(engine, tmp_path)
    monkeypatch.setattr(importer, "write", None)
    monkeypatch.setattr(importer, "read", None)
    assert started.step() == 0
    worker.close()


def test_no_spool_is_nothing_to_import(engine: Engine, tmp_path: Path) -> None:
    assert Importer(engine, tmp_path).step() == 0


def test_end_may_come_in_a_later_batch_and_file(engine: Engine, tmp_path: Path) -> None:
    worker, started = WorkerSpool(tmp_path), Importer(engine, tmp_path)
    first, second = worker.begin(1), worker.begin(2)
    started.step()
    with database.read(engine) as connection:
        opened = connection.execute(
            select(usage_open.c.row_id, usage_open.c.worker).order_by(usage_open.c.row_id)
        )
        assert opened.all() == [(first, "worker1"), (second, "worker1")]
    worker.rotate()
    worker.end(1)
    worker.end(2)
    started.step()
    assert rows(engine, "row_id", "state") == [(first, "ok"), (second, "ok")]
    assert spool_names(tmp_path) == {"worker1.2"}
    with database.read(engine) as connection:
        assert connection.execute(select(usage_open)).all() == []
    worker.close()


def test_exchanges_of_a_worker_that_is_gone_are_lost(engine: Engine, tmp_path: Path) -> None:
    killed, other = WorkerSpool(tmp_path), WorkerSpool(tmp_path, "worker2")
    for worker in (killed, other):
        worker.begin(1)
        worker.begin(2)
        worker.end(2)
    started = import_all(engine, tmp_path)
    assert rows(engine, "state") == ["ok", "ok"]
    killed.close()
    started.step()
    assert rows(engine, "row_id", "state")[:2] == [
        (f"{START_MS + 1000:012x}worker1000001", "lost"),
        (f"{START_MS + 2000:012x}worker1000002", "ok"),
    ]
    assert (started.lost, total(engine, "requests"), total(engine, "errors")) == (1, 3, 1)
    assert spool_names(tmp_path) == {"worker2.1"}
    other.end(1)
    other.close()
    started.step()
    assert (
        sorted(rows(engine, "state")) == ["lost", "ok", "ok", "ok"]
        and spool_names(tmp_path) == set()
    )


def test_worker_that_begins_a_file_while_the_last_one_is_read_is_not_gone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, lister, listed = WorkerSpool(tmp_path), importer.list_spool, []
    row_id = worker.begin(1)

    def list_and_rotate(directory: Path) -> Any:
        """The worker goes on to another file as soon as it was listed without it."""
        listed.append(lister(directory))
        if len(listed) == 1:
            worker.rotate()
        return listed[-1]

    monkeypatch.setattr(importer, "list_spool", list_and_rotate)
    started = Importer(engine, tmp_path)
    started.step()
    assert len(listed) == 2 and rows(engine, "state") == []
    worker.end(1)
    started.step()
    assert rows(engine, "row_id", "state") == [(row_id, "ok")]
    worker.close()


@pytest.mark.parametrize(
    ("line", "damaged"),
    [
        (b"garbage\n", 1),
        (b'{"end":{"row_id":"x"}}\n', 1),
        (b'{"end":5}\n', 1),
        (b'{"begin":[]}\n{"begin":{"row_id":7}}\n', 2),
        (b"[]\n\xff\xfe\n", 2),
        (b"\n", 0),
        (b"x" * 5_000_000 + b"\n", 3),  # more than is read at once
    ],
)
def test_damaged_lines_are_skipped_and_counted(
    line: bytes, damaged: int, engine: Engine, tmp_path: Path
) -> None:
    worker = WorkerSpool(tmp_path)
    for number in (1, 2):
        worker.begin(number)
        worker.end(number)
        worker.write(line if number == 1 else b"")
    started = import_all(engine, tmp_path)
    assert (rows(engine, "state"), started.damaged) == (["ok", "ok"], damaged)
    with database.read(engine) as connection:
        assert connection.scalar(select(spool_positions.c.damaged)) == damaged
    worker.close()


def test_line_that_is_being_written_waits_for_its_rest(engine: Engine, tmp_path: Path) -> None:
    worker, started = WorkerSpool(tmp_path), Importer(engine, tmp_path)
    worker.end(1)
    worker.write(b'{"begin":')
    assert [started.step(), started.step(), started.damaged] == [2, 0, 0]
    worker.close()
    assert [started.step(), started.damaged, rows(engine, "state")] == [1, 1, ["ok"]]


def test_last_line_may_lack_its_end(engine: Engine, tmp_path: Path) -> None:
    worker = WorkerSpool(tmp_path)
    worker.end(1)
    worker.close()
    path = tmp_path / "usage" / "worker1.1"
    path.write_bytes(path.read_bytes().rstrip())
    assert import_all(engine, tmp_path).rows == 1


def test_batches_are_small(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "MAX_LINES", 7)
    workers = [WorkerSpool(tmp_path, f"worker{number}") for number in range(3)]
    for worker in workers:
        for number in range(10):
            worker.begin(number)
            worker.end(number)
        worker.close()
    started = Importer(engine, tmp_path)
    sizes = []
    while size := started.step():
        sizes.append(size)
    assert max(sizes) == 7 and sum(sizes) == 63
    assert (started.rows, started.lost, total(engine, "requests"), total(engine, "cost")) == (
        30,
        0,
        30,
        15,
    )
    started.step()
    assert spool_names(tmp_path) == set()


def test_import_goes_on_where_another_importer_ended(engine: Engine, tmp_path: Path) -> None:
    worker, first = WorkerSpool(tmp_path), Importer(engine, tmp_path)
    worker.end(1)
    first.step()
    worker.end(2)
    assert import_all(engine, tmp_path).rows == 1
    worker.end(3)
    while first.step() or first.rows < 2:  # it notices that it is not alone
        pass
    assert len(rows(engine, "row_id")) == total(engine, "requests") == 3
    with database.read(engine) as connection:
        assert connection.scalar(select(spool_positions.c.position)) == worker.path.stat().st_size
    worker.close()


def test_files_that_come_back_are_not_imported_again(engine: Engine, tmp_path: Path) -> None:
    worker = WorkerSpool(tmp_path)
    worker.begin(1)
    worker.end(1)
    worker.close()
    shutil.copytree(tmp_path / "usage", tmp_path / "copy")
    import_all(engine, tmp_path)
    shutil.copytree(tmp_path / "copy", tmp_path / "usage", dirs_exist_ok=True)
    assert import_all(engine, tmp_path).rows == 0 and spool_names(tmp_path) == set()
    # Under another name, or with a database that has forgotten the file.
    (tmp_path / "copy" / "worker1.1").rename(tmp_path / "usage" / "worker9.1")
    again = import_all(engine, tmp_path)
    assert again.rows == again.damaged == 0
    assert len(rows(engine, "row_id")) == total(engine, "requests") == 1


def test_file_that_is_shorter_than_what_was_imported_is_finished(
    engine: Engine, tmp_path: Path
) -> None:
    """After a power cut: the database had reached the disk, the end of the spool had not."""
    worker, started = WorkerSpool(tmp_path), Importer(engine, tmp_path)
    worker.end(1)
    worker.end(2)
    started.step()
    worker.close()
    (tmp_path / "usage" / "worker1.1").write_bytes(b'{"spool":1}\n')
    import_all(engine, tmp_path)
    assert (len(rows(engine, "row_id")), spool_names(tmp_path)) == (2, set())


def test_unavailable_database_loses_nothing_and_files_are_compressed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = WorkerSpool(tmp_path)
    for number in range(300):
        worker.begin(number)
        worker.end(number)
        if number % 100 == 99:
            worker.rotate()
    started = Importer(engine, tmp_path)

    def refuse(_engine: Engine) -> Any:
        """As `read` and `write` do."""
        raise RecordsUnavailable

    with monkeypatch.context() as away:
        away.setattr(importer, "read", refuse)
        away.setattr(importer, "write", refuse)
        for names in ({"worker1.1.zst", "worker1.2"}, {"worker1.1.zst", "worker1.2.zst"}):
            with pytest.raises(RecordsUnavailable):
                started.step()
            assert names <= spool_names(tmp_path)  # the oldest first
    while started.step():
        pass
    assert (started.rows, started.lost, total(engine, "requests")) == (300, 0, 300)
    assert spool_names(tmp_path) == {"worker1.4"}
    worker.close()


def test_commit_that_fails_is_repeated_as_a_whole(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, started = WorkerSpool(tmp_path), Importer(engine, tmp_path)
    worker.begin(1)
    worker.end(2)
    worker.close()
    with monkeypatch.context() as away:
        away.setattr(importer.HourlySums, "add_up", lambda _sums, _rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            started.step()
    assert (rows(engine, "state"), spool_names(tmp_path)) == ([], {"worker1.1"})
    while started.step():
        pass
    assert (sorted(rows(engine, "state")), total(engine, "requests")) == (["lost", "ok"], 2)


def test_values_that_the_database_refuses_stop_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(row: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Leaves out what must not be null."""
        return lambda line: row(line) | ({"upstream": None} if line["id"].endswith("-50") else {})

    monkeypatch.setattr(importer, "usage_row", spoil(importer.usage_row))
    worker = WorkerSpool(tmp_path)
    for number in range(100):
        worker.begin(number)
        worker.end(number)
    started = Importer(engine, tmp_path)
    for _ in range(100):
        started.step()
    assert (started.rows, started.damaged, total(engine, "requests")) == (99, 1, 99)
    worker.close()


@pytest.mark.parametrize("jump_s", [-(10**8), 10**9])
def test_clock_that_jumps_changes_only_the_times(
    jump_s: int, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "MAX_LINES", 3)
    worker = WorkerSpool(tmp_path)
    worker.begin(1)
    worker.end(1)
    worker.begin(2, started_at=START_MS / 1000 + jump_s)
    worker.end(2, started_at=START_MS / 1000 + jump_s)
    worker.close()
    assert import_all(engine, tmp_path).rows == total(engine, "requests") == 2
    with database.read(engine) as connection:  # the last use is the latest
        assert connection.scalar(select(token_uses.c.last_used)) == START_MS + max(
            1000, jump_s * 1000
        )


def test_exchange_whose_worker_left_no_file_is_lost_after_a_day(
    engine: Engine, tmp_path: Path
) -> None:
    worker, there = WorkerSpool(tmp_path), WorkerSpool(tmp_path, "worker2")
    now = time.time()
    for number, days in ((1, 2), (2, 0.5)):
        worker.begin(number, started_at=now - days * 86_400)
        there.begin(number, started_at=now - days * 86_400)
    started = Importer(engine, tmp_path)
    started.step()
    worker.path.unlink()  # and not closed: this is not about its lock
    started.step()
    assert rows(engine, "row_id", "state") == [(f"{START_MS + 1000:012x}worker1000001", "lost")]
    assert (started.lost, total(engine, "requests")) == (1, 1)
    with database.read(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(usage_open)) == 3
    worker.close()
    there.close()
