"""Backup and restore. A backup is one SQLite file with all tables, whatever database it is of.

So a backup of one kind of database can be restored into the other, and no program of PostgreSQL's
version is needed. It has what the database has: names, sums and digests, no token.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select, text, update

from ollama_proxy.errors import ConfigError, RecordsUnavailable
from ollama_proxy.records.database import check_schema, open_database, read, upgrade, write
from ollama_proxy.records.tables import audit, meta, metadata

#: Rows that are copied at a time.
_CHUNK = 1000

#: Added to the name of what a restore has replaced.
REPLACED = ".replaced"

#: SQLite's files beside the database.
_BESIDE = ("-wal", "-shm")


def back_up(engine: Engine, path: Path) -> None:
    """Writes a consistent copy to `path`, with mode 0600; one that is there is replaced when
    the new one is complete. The gateway goes on meanwhile. Raises ConfigError,
    RecordsUnavailable and OSError."""
    with _unfinished(path.absolute()) as unfinished:
        if engine.dialect.name == "sqlite":
            with read(engine) as connection:
                check_schema(connection)
            copy_sqlite(Path(str(engine.url.database)), unfinished)
        else:
            copy = open_database(f"sqlite:{unfinished}", unfinished.parent)
            upgrade(copy)
            with read(engine) as source, write(copy) as target:
                check_schema(source)
                _copy_tables(source, target)
            copy.dispose()
        finish_copy(unfinished)
        os.replace(unfinished, path)


def restore(engine: Engine, path: Path) -> Path | None:
    """Puts a backup in the place of the database. Nothing else may use the database meanwhile.

    A SQLite database that was there is kept, under the returned path; the tables of PostgreSQL are
    replaced in one transaction. Raises ConfigError if the file is no backup, or one of a newer
    version; then nothing has changed.
    """
    place = Path(str(engine.url.database) if engine.dialect.name == "sqlite" else path).absolute()
    with _unfinished(place) as unfinished:
        copy_sqlite(path, unfinished)
        copy = open_database(f"sqlite:{unfinished}", place.parent)
        try:
            upgrade(copy)
            with write(copy) as connection:
                revision = max(
                    read_revision(engine), connection.execute(select(meta.c.revision)).scalar_one()
                )
                # Every worker notices that its tokens and settings may be others now.
                connection.execute(update(meta).values(revision=revision + 1))
            if engine.dialect.name == "postgresql":
                upgrade(engine)
                preparer = engine.dialect.identifier_preparer
                names = ", ".join(preparer.format_table(table) for table in metadata.sorted_tables)
                with read(copy) as source, write(engine) as target:
                    target.execute(text(f"TRUNCATE {names}"))
                    _copy_tables(source, target)
                    newest = select(func.coalesce(func.max(audit.c.id), 0) + 1).scalar_subquery()
                    target.execute(
                        select(
                            func.setval(func.pg_get_serial_sequence("audit", "id"), newest, False)
                        )
                    )
                return None
        finally:
            copy.dispose()
        finish_copy(unfinished)
        engine.dispose()
        # The old files are moved aside, the log first: with another database, it would
        # be applied to that one.
        kept = place.with_name(place.name + REPLACED)
        was_there = place.exists()
        for suffix in (*_BESIDE, ""):
            old = place.with_name(place.name + suffix)
            aside = kept.with_name(kept.name + suffix)
            aside.unlink(missing_ok=True)
            if old.exists():
                os.replace(old, aside)
        os.replace(unfinished, place)
        _sync(place.parent)
        return kept if was_there else None


def read_revision(engine: Engine) -> int:
    """The revision of tokens and settings; a large number if it can't be
    read, which no backup has."""
    try:
        with read(engine) as connection:
            check_schema(connection)
            return int(connection.execute(select(meta.c.revision)).scalar_one())
    except (RecordsUnavailable, ConfigError):
        return 1 << 40


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which is deleted if it is still there at the end."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    os.close(
        os.open(
            unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    )
    try:
        yield unfinished
    finally:
        for suffix in ("", *_BESIDE):
            with suppress(FileNotFoundError):
                unfinished.with_name(unfinished.name + suffix).unlink()


def copy_sqlite(source: Path, target: Path) -> None:
    """Copies one state of a database that others may write to; they do not wait. Raises ConfigError
    if it is damaged or no database, RecordsUnavailable if the copy can't be written."""
    if not source.is_file():
        raise ConfigError(f"{source}: there is no such file")
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
            closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
            result = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise RecordsUnavailable(detail=f"{source} can't be copied: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{source}: is damaged or no database ({error})") from error
    if result != "ok":
        raise ConfigError(f"{source}: is damaged ({result})")


def finish_copy(path: Path) -> None:
    """Makes it one file, which is on the disk when this returns."""
    with closing(sqlite3.connect(path)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")
    _sync(path)


def _sync(path: Path) -> None:
    """Waits until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_tables(source: Connection, target: Connection) -> None:
    """Copies every row of the tables, which are empty in the target but for the row of `meta`."""
    target.execute(meta.delete())
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=_CHUNK).execute(select(table)).mappings()
        for chunk in rows.partitions(_CHUNK):
            target.execute(table.insert(), [dict(row) for row in chunk])
