"""A backup is one file of either kind of database, and what is restored is what was backed up."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update

from ollama_proxy.errors import ConfigError
from ollama_proxy.records import audit, database
from ollama_proxy.records.backup import REPLACED, back_up, restore
from ollama_proxy.records.check import check_records
from ollama_proxy.records.importer import Importer
from ollama_proxy.records.tables import meta, metadata, tokens, usage
from tests.rig.fixtures import function_fixture
from tests.rig.worker_spool import WorkerSpool

ACTOR = {"by": "cli:root", "from": ""}


def dump(engine: Engine) -> dict[str, list[Any]]:
    """All rows of all tables, but for the row of `meta`."""
    with database.read(engine) as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for table in metadata.sorted_tables
            if table is not meta
        }


def run(worker: WorkerSpool, engine: Engine, state: Path, *numbers: int) -> None:
    """Exchanges, until they are imported."""
    for number in numbers:
        worker.begin(number)
        worker.end(number)
    importer = Importer(engine, state)
    while importer.step():
        pass


#: A worker that writes to the spool until the test ends.
worker = function_fixture(lambda tmp_path: closing(WorkerSpool(tmp_path)))


@pytest.fixture
def used(engine: Engine, worker: WorkerSpool, tmp_path: Path) -> Engine:
    """Records with something in every table."""
    worker.begin(100)
    run(worker, engine, tmp_path, *range(20))
    key: dict[str, Any] = {
        "name": "a",
        "digest": "0" * 64,
        "prefix": "op_abcd",
        "models": ["qwen*"],
        "note": "ü\n",
    }
    key |= {
        "disabled": False,
        "created_at": 1,
        "created_by": "cli:root",
        "limits": {"concurrent": 2},
    }
    setting = {
        "kind": "models",
        "name": "m",
        "value": {"think": True},
        "changed_at": 1,
        "changed_by": "cli:root",
    }
    with database.write(engine) as connection:
        connection.execute(insert(tokens), key)
        connection.execute(insert(metadata.tables["managed_settings"]), setting)
        connection.execute(update(meta).values(revision=7))
        audit.add(connection, ACTOR, "create", "tokens.a", after={"name": "a"})
    assert all(dump(engine).values())
    return engine


def test_restored_records_are_those_that_were_backed_up(
    used: Engine, worker: WorkerSpool, tmp_path: Path
) -> None:
    file, before = tmp_path / "backup.db", dump(used)
    back_up(used, file)
    assert file.stat().st_mode & 0o777 == 0o600
    run(worker, used, tmp_path, 21, 22)
    with database.write(used) as connection:
        connection.execute(tokens.delete())
    kept = restore(used, file)
    assert dump(used) == before
    assert check_records(used, tmp_path).problems == []
    with database.write(used) as connection:
        # Workers notice that something may have changed.
        assert connection.scalar(select(meta.c.revision)) == 8
    if used.dialect.name == "sqlite":
        assert kept == tmp_path / f"records.db{REPLACED}"
        replaced = database.open_database(f"sqlite:{kept}", tmp_path)
        assert len(dump(replaced)["usage"]) == 22
        replaced.dispose()
    # What the spool still has is imported again, once.
    run(worker, used, tmp_path)
    assert len(dump(used)["usage"]) == 22
    assert check_records(used, tmp_path).problems == []
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_backup_of_one_kind_is_restored_into_another(
    used: Engine, request: Any, tmp_path: Path
) -> None:
    file, before = tmp_path / "backup.db", dump(used)
    back_up(used, file)
    server = request.getfixturevalue("postgres_server")
    url = server.new_database() if used.dialect.name == "sqlite" else f"sqlite:{tmp_path}/other.db"
    other = database.open_database(url, tmp_path)
    restore(other, file)
    assert dump(other) == before
    with database.write(other) as connection:
        audit.add(connection, ACTOR, "create", "tokens.b")  # ids go on
    other.dispose()
    if used.dialect.name == "sqlite":
        server.drop_database(url)


def test_backup_is_consistent_while_rows_are_imported(
    engine: Engine, worker: WorkerSpool, tmp_path: Path
) -> None:
    over, failed = threading.Event(), []

    def load() -> None:
        """Imports exchanges until the test has its backups."""
        try:
            number = 0
            while not over.is_set():
                run(worker, engine, tmp_path, *range(number, number + 20))
                number += 20
        except Exception as error:  # a test's thread reports it
            failed.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    counts = []
    try:
        for _ in range(5):
            back_up(engine, tmp_path / "backup.db")
            copy = database.open_database(f"sqlite:{tmp_path}/backup.db", tmp_path)
            assert check_records(copy, tmp_path / "nowhere").problems == []
            counts.append(len(dump(copy)["usage"]))
            copy.dispose()
    finally:
        over.set()
        thread.join()
    assert failed == [] and counts == sorted(counts) and counts[-1] > 0


def test_destroyed_database_comes_back(used: Engine, worker: WorkerSpool, tmp_path: Path) -> None:
    file, before = tmp_path / "backup.db", dump(used)
    back_up(used, file)
    run(worker, used, tmp_path, 21, 22)
    if used.dialect.name == "sqlite":
        log = (tmp_path / "records.db-wal").read_bytes()
        used.dispose()
        (tmp_path / "records.db").write_bytes(b"no database any more" * 1000)
        (tmp_path / "records.db-wal").write_bytes(log)  # valid, but of what is not there any more
    else:
        with database.write(used) as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    restore(used, file)
    assert dump(used) == before
    assert not database.upgrade(used)


@pytest.mark.parametrize("what", ["nothing", "text", "cut", "newer", "foreign"])
def test_what_is_no_backup_changes_nothing(what: str, used: Engine, tmp_path: Path) -> None:
    file, before = tmp_path / "backup.db", dump(used)
    back_up(used, file)
    if what == "nothing":
        file.unlink()
    elif what == "text":
        file.write_text("CREATE TABLE usage;\n" * 500)
    elif what == "cut":
        file.write_bytes(file.read_bytes()[:-5000])
    else:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            if what == "newer":
                connection.execute(f"UPDATE {database.VERSION_TABLE} SET version_num = '9999'")
            else:
                connection.execute(f"DROP TABLE {database.VERSION_TABLE}")
    with pytest.raises(ConfigError):
        restore(used, file)
    assert dump(used) == before
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_backup_replaces_an_older_one_only_when_it_is_complete(
    used: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    file.write_text("an older one")
    broken = database.open_database(f"sqlite:{tmp_path}/broken.db", tmp_path)
    (tmp_path / "broken.db").write_bytes(b"\xff" * 20_000)
    with pytest.raises(Exception, match="database"):
        back_up(broken, file)
    assert file.read_text() == "an older one"
    back_up(used, file)
    assert file.read_bytes().startswith(b"SQLite format 3")
    assert not Path(f"{file}-wal").exists()
    # One file, without a log.
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as connection:
        assert connection.execute(f"SELECT count(*) FROM {usage.name}").fetchone() == (20,)


def test_backup_has_no_text_of_a_token(used: Engine, tmp_path: Path) -> None:
    from ollama_proxy.records.tokens import create_token

    with database.write(used) as connection:
        made = create_token(connection, name="secret", fields={}, actor=ACTOR)
    back_up(used, tmp_path / "backup.db")
    secret = str(made["token"]).encode()
    shutil.rmtree(tmp_path / "usage")
    assert all(secret[7:] not in path.read_bytes() for path in tmp_path.iterdir())
