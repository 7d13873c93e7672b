"""Where the records are, who creates their tables, and what happens if the
database can't be used."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from ollama_proxy.errors import ConfigError, RecordsUnavailable
from ollama_proxy.records import database, tables
from tests.rig.gateway import free_port
from tests.rig.records_process import UPGRADES
from tests.rig.tables import each_row
from tests.rig.tiers import LONG, on_postgresql

#: How often processes start at once with another database.
STARTS = 6 if LONG else 2
#: A second migration, of a version after this one.
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("meta", sa.Column("second", sa.Integer()))
"""


@pytest.fixture
def engine(records_url: str, tmp_path: Path) -> Iterator[Engine]:
    """A database that `upgrade` has not seen yet."""
    opened = database.open_database(records_url, tmp_path)
    yield opened
    opened.dispose()


@each_row(
    ("url", "path"),
    [
        ("sqlite:state/records.db", "/var/lib/gateway/records.db"),
        ("sqlite:usage.db", "/var/lib/gateway/usage.db"),
        ("sqlite:state/state/usage.db", "/var/lib/gateway/state/usage.db"),
        ("sqlite:///srv/records.db", "/srv/records.db"),
        ("sqlite:/srv/records.db", "/srv/records.db"),
        ("sqlite:////srv/records.db", "/srv/records.db"),
    ],
)
def test_relative_path_is_in_the_state_directory(url: str, path: str) -> None:
    assert database.sqlite_path(url, Path("/var/lib/gateway")) == Path(path)


@pytest.mark.parametrize("url", ["mysql://host/db", "records.db", "postgresql", ""])
def test_other_urls_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="records.url: must be"):
        database.open_database(url, tmp_path)


def test_upgrade_creates_the_tables_once(engine: Engine) -> None:
    assert [database.upgrade(engine), database.upgrade(engine)] == [True, False]


def test_only_the_owner_reads_the_files(tmp_path: Path) -> None:
    engine = database.open_database("sqlite:state/records.db", tmp_path)
    database.upgrade(engine)
    with database.write(engine) as connection:
        connection.execute(tables.meta.update().values(revision=1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    engine.dispose()
    assert modes == dict.fromkeys(("records.db", "records.db-wal", "records.db-shm"), 0o600)


def test_program_that_was_killed_has_lost_no_commit(engine: Engine) -> None:
    database.upgrade(engine)
    if engine.dialect.name == "sqlite":
        with database.read(engine) as connection:
            names = ("journal_mode", "synchronous")
            assert [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names] == [
                "wal",
                2,
            ]


def test_write_that_fails_changes_nothing(engine: Engine) -> None:
    database.upgrade(engine)
    with pytest.raises(ZeroDivisionError), database.write(engine) as connection:
        connection.execute(tables.meta.update().values(revision=7))
        raise ZeroDivisionError
    with database.read(engine) as connection:
        assert connection.execute(tables.meta.select()).scalar() == 0


def test_reader_sees_one_state_and_does_not_stop_a_writer(engine: Engine) -> None:
    database.upgrade(engine)
    revision = tables.meta.select()
    with database.read(engine) as reader:
        before = reader.execute(revision).scalar()
        with database.write(engine) as writer:
            writer.execute(tables.meta.update().values(revision=5))
        assert reader.execute(revision).scalar() == before == 0
    with database.read(engine) as reader:
        assert reader.execute(revision).scalar() == 5


def test_writers_wait_for_each_other(engine: Engine) -> None:
    database.upgrade(engine)
    step = tables.meta.update().values(revision=tables.meta.c.revision + 1)

    def count() -> None:
        """25 changes that each read first."""
        for _ in range(25):
            with database.write(engine) as connection:
                connection.execute(step)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with database.read(engine) as connection:
        assert connection.execute(tables.meta.select()).scalar() == 100


def test_lock_of_another_process_makes_it_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
    engine = database.open_database("sqlite:state/records.db", tmp_path)
    database.upgrade(engine)
    with closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RecordsUnavailable) as caught, database.write(engine):
            pass
        assert caught.value.detail == "database is locked"
        with database.read(engine) as connection:
            assert connection.execute(tables.meta.select()).scalar() == 0
    engine.dispose()


def test_deleted_file_is_not_written_to(tmp_path: Path) -> None:
    engine = database.open_database("sqlite:state/records.db", tmp_path)
    database.upgrade(engine)
    (tmp_path / "records.db").unlink()
    with pytest.raises(RecordsUnavailable), database.write(engine):
        pass
    assert not (tmp_path / "records.db").exists()
    for each in tmp_path.iterdir():  # SQLite would take them for those of the next file
        each.unlink()
    assert database.upgrade(engine)
    engine.dispose()


def test_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    engine = database.open_database(
        f"postgresql://user:a-secret@127.0.0.1:{free_port()}/records", tmp_path
    )
    with pytest.raises(RecordsUnavailable) as caught:
        database.upgrade(engine)
    assert "refused" in caught.value.detail and "a-secret" not in caught.value.detail


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_newer_schema_is_refused_and_stays(engine: Engine, tmp_path: Path) -> None:
    database.upgrade(engine)
    with database.write(engine) as connection:
        connection.execute(text(f"UPDATE {database.VERSION_TABLE} SET version_num = '9999'"))
    for _ in range(2):
        with pytest.raises(database.SchemaTooNew, match="newer version of ollama-proxy") as caught:
            database.upgrade(engine)
        assert len(caught.value.complaints) == 1 and "\n" not in str(caught.value)
    with database.read(engine) as connection:
        assert database.schema_revision(connection) == "9999"


def test_tables_of_another_program_stay(engine: Engine, tmp_path: Path) -> None:
    if engine.dialect.name == "sqlite":
        (tmp_path / "records.db").touch()
    with database.write(engine) as connection:
        connection.execute(text("CREATE TABLE tokens (secret TEXT)"))
    with pytest.raises(ConfigError, match="has a table tokens that is not one of the records"):
        database.upgrade(engine)
    with database.read(engine) as connection:
        assert connection.execute(text("SELECT * FROM tokens")).keys() == {"secret"}


def overwrite_head(data: bytes) -> bytes:
    return b"something else" * 10 + data[140:]


def overwrite_page(data: bytes) -> bytes:
    return data[:-4096] + b"\xff" * 600 + data[-3496:]


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("damage", [overwrite_head, overwrite_page, truncate])
def test_damaged_file_is_refused_and_stays(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "records.db"
    engine = database.open_database("sqlite:state/records.db", tmp_path)
    database.upgrade(engine)
    engine.dispose()
    path.write_bytes(damage(path.read_bytes()))
    before = digest(path)
    with pytest.raises(
        ConfigError, match=f"{re.escape(str(path))}: is damaged or no database"
    ) as caught:
        database.upgrade(engine)
    engine.dispose()
    assert "\n" not in str(caught.value) and digest(path) == before


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("has_file", [False, True])
def test_read_only_directory_is_a_clear_error(has_file: bool, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=True)
    try:
        engine = database.open_database("sqlite:state/records.db", tmp_path)
        if has_file:
            database.upgrade(engine)
            engine.dispose()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(ConfigError, match="cannot be used for the records: .*[Rr]ead-only"):
            database.upgrade(engine)
        engine.dispose()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_directory_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    engine = database.open_database("sqlite:nowhere/records.db", tmp_path)
    with pytest.raises(
        ConfigError, match="nowhere/records.db: cannot be used for the records: No such file"
    ):
        database.upgrade(engine)


@on_postgresql
@pytest.mark.parametrize("is_old", [False, True])
def test_four_processes_that_start_at_once_upgrade_it_once(
    is_old: bool, records_url: str, tmp_path: Path
) -> None:
    """On an empty database, and on one of the version before."""
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    first = next(database.MIGRATIONS.glob("r0001_*.py"))
    (migrations / first.name).write_bytes(first.read_bytes())
    (migrations / "r0002_second.py").write_text(SECOND)
    command = [
        sys.executable,
        "-m",
        "tests.rig.records_process",
        "upgrade",
        str(tmp_path),
        str(migrations),
        "0002",
    ]
    processes = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert processes.stdin and processes.stdout
    for number in range(STARTS):
        url = records_url.replace("records.db", f"records-{number}.db")
        engine = database.open_database(url, tmp_path)
        if engine.dialect.name == "postgresql":
            with database.write(engine) as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
        if is_old:
            database.upgrade(engine)
        print(url, file=processes.stdin, flush=True)
        answers = sorted(processes.stdout.readline().strip() for _ in range(UPGRADES))
        assert answers == ["False", "False", "False", "True"], f"start {number}"
        with database.read(engine) as connection:
            assert (
                database.schema_revision(connection),
                connection.execute(tables.meta.select()).scalar(),
            ) == (
                "0002",
                0,
            )
        engine.dispose()
    processes.communicate(timeout=20)
