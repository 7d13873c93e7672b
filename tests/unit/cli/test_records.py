"""The commands that keep the records, as an operator calls them."""

from __future__ import annotations

import fcntl
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.cli import main
from ollama_proxy.cli.records import EXIT_UNAVAILABLE, EXIT_UNUSABLE
from ollama_proxy.coordination import LOCK_NAME
from ollama_proxy.records import database
from ollama_proxy.records.importer import Importer
from tests.rig.worker_spool import WorkerSpool

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, records_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ollama-proxy records ...` with a database of each kind; returns the exit status."""
    (tmp_path / "config.yaml").write_text(f'records: {{url: "{records_url}"}}\n')
    monkeypatch.setenv("OLLAMA_PROXY_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return lambda *words: main(["records", *map(str, words)])


def use(records_url: str, tmp_path: Path) -> None:
    """Ten exchanges that are imported."""
    worker = WorkerSpool(tmp_path / "state")
    for number in range(10):
        worker.end(number)
    worker.close()
    engine = database.open_database(records_url, tmp_path / "state")
    Importer(engine, tmp_path / "state").step()
    engine.dispose()


def test_drill(
    run: Run,
    records_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("backups/backup.db")
    file.parent.mkdir()
    assert [run("upgrade"), run("upgrade")] == [0, 0]
    assert capsys.readouterr().out == "the tables are new now\nnothing to do\n"
    use(records_url, tmp_path)
    assert run("backup", file) == run("restore", file) == run("check") == 0
    said = capsys.readouterr().out
    assert f"restored from {file}" in said and "10 rows" in said and said.endswith("OK\n")


def test_problem_has_an_exit_status(
    run: Run, records_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("upgrade")
    use(records_url, tmp_path)
    engine = database.open_database(records_url, tmp_path / "state")
    with database.write(engine) as connection:
        connection.exec_driver_sql("UPDATE usage_hourly SET requests = 9")
    engine.dispose()
    assert run("check") == 1
    assert "requests is 9 in the sums and 10 in the rows\n1 problems\n" in capsys.readouterr().out


def test_restore_is_refused_while_the_gateway_runs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("upgrade")
    run("backup", tmp_path / "backup.db")
    with open(tmp_path / "state" / LOCK_NAME, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("restore", tmp_path / "backup.db") == 2
    assert "stop it first" in capsys.readouterr().err
    assert run("restore", tmp_path / "backup.db") == 0


def test_no_tables_is_a_clear_error(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = {run("check"), run("backup", tmp_path / "backup.db")}
    assert len(statuses) == 1 and statuses <= {EXIT_UNUSABLE, EXIT_UNAVAILABLE}
    assert len(capsys.readouterr().err.splitlines()) == 2 and not (tmp_path / "backup.db").exists()


def test_file_that_can_not_be_written_is_a_clear_error(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("upgrade")
    assert run("backup", tmp_path / "nowhere" / "backup.db") == 2
    assert re.search(
        r"nowhere/\.backup\.db\.\d+: No such file or directory\n$", capsys.readouterr().err
    )


def test_locked_database_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
    (tmp_path / "config.yaml").write_text("records: {url: 'sqlite:state/records.db'}\n")
    monkeypatch.setenv("OLLAMA_PROXY_CONFIG", str(tmp_path / "config.yaml"))
    assert main(["records", "upgrade"]) == 0
    with closing(sqlite3.connect(tmp_path / "state" / "records.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert main(["records", "upgrade"]) == EXIT_UNAVAILABLE
    assert (
        capsys.readouterr().err
        == "the database of the records is not available: database is locked\n"
    )


def test_nothing_to_keep_without_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("records: {url: null}\n")
    monkeypatch.setenv("OLLAMA_PROXY_CONFIG", str(tmp_path / "config.yaml"))
    assert main(["records", "check"]) == 2
    assert capsys.readouterr().err == "records.url is null, so nothing is recorded\n"
