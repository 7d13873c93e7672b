"""The database of the records: SQLite in the state directory, or PostgreSQL.

Its users are the coordinator and the commands. They use `read` and `write`, each one transaction,
which turn errors of an unavailable database into RecordsUnavailable.

SQLite commits with `synchronous=FULL`: the importer deletes a spool file after the commit with its
last rows, so a power cut must not undo that commit.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from ollama_proxy.errors import ConfigError, RecordsUnavailable
from ollama_proxy.records.tables import REVISION, metadata

#: Alembic's table, by a name of its own: a database may be shared with other
#: programs that use Alembic.
VERSION_TABLE = "records_version"

#: Where the migrations are.
MIGRATIONS = Path(__file__).with_name("migrations")

#: Longest wait for a lock that another process holds, in seconds; then the database is
#: unavailable for the caller.
LOCK_TIMEOUT_S = 5

#: Largest SQLite file that is checked whole before it is used, in bytes: about
#: a quarter of a second.
MAX_CHECKED_BYTES = 128 << 20

_UPGRADE_LOCK = 0x6F6C6C616D61  # any number, as long as it stays the same

#: Ends a connection to a server that is gone within half a minute, and does not let a stopped
#: coordinator keep locks.
_POSTGRESQL = {
    "client_encoding": "utf8",
    "application_name": "ollama-proxy",
    "connect_timeout": LOCK_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_POSTGRESQL_SESSION = (
    f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    "SET timezone = 'UTC'",
)

#: 8 MB of cache; the write-ahead log is cut back to 64 MB.
_SQLITE_SESSION = (
    "PRAGMA synchronous = FULL",
    "PRAGMA cache_size = -8192",
    "PRAGMA journal_size_limit = 67108864",
)


class SchemaTooNew(ConfigError):
    """A newer version of the program has written the database."""


def open_database(url: str, directory: Path) -> Engine:
    """The database of `records.url`, which is connected to when it is used; `upgrade`
    creates it. Raises ConfigError.

    `directory`: the state directory; a relative path is one in it, and so is one
    that begins with `state/`.
    """
    if url.startswith("sqlite:"):
        return _open_sqlite(sqlite_path(url, directory))
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigError("records.url: must be sqlite:PATH or postgresql://...") from error
    if address.drivername not in ("postgresql", "postgres"):
        raise ConfigError("records.url: must be sqlite:PATH or postgresql://...")
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"),
        connect_args=_POSTGRESQL,
        pool_pre_ping=True,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        """Sets what holds for every transaction."""
        with connection.cursor() as cursor:
            cursor.execute("; ".join(_POSTGRESQL_SESSION))
        connection.commit()

    return engine


def sqlite_path(url: str, directory: Path) -> Path:
    """The file of `sqlite:PATH` or `sqlite:///PATH`; the last of three slashes is the first
    one of an absolute path."""
    path = url.removeprefix("sqlite:").removeprefix("//").removeprefix("state/")
    return directory / (path if path[:1] != "/" else f"/{path.lstrip('/')}")


def _open_sqlite(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        # mode=rw: only `upgrade` creates the file, and gives it its mode.
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=LOCK_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        for command in _SQLITE_SESSION:
            connection.execute(command)
        return connection

    engine = create_engine(
        URL.create("sqlite", database=str(path)), creator=connect, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def remember_file(_connection: object, record: Any) -> None:
        """Notes which file the connection uses."""
        record.info["file"] = _identify(path)

    @event.listens_for(engine, "checkout")
    def check_file(_connection: object, record: Any, _proxy: object) -> None:
        """What is written to a deleted file would be lost."""
        if record.info["file"] != _identify(path):
            raise DisconnectionError

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        """A transaction that reads first and writes later could not wait for its lock, so one that
        may write takes it at once."""
        reads = connection.get_execution_options().get("reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and never waits for a writer.
    Raises RecordsUnavailable."""
    with _translate_errors(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.execution_options(reads=True).begin():
            yield connection


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A transaction that is committed at the end. Raises RecordsUnavailable; then nothing has
    changed, unless the connection was cut while it committed."""
    with _translate_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, NoFreeConnection) as error:
        raise RecordsUnavailable(detail=describe_error(error)) from error
    except DatabaseError as error:
        if is_damage(error):
            raise RecordsUnavailable(detail=describe_error(error)) from error
        raise


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite can't make sense of its file; its other errors are of subclasses."""
    return type(getattr(error, "orig", None)) is sqlite3.DatabaseError


def describe_error(error: SQLAlchemyError) -> str:
    """What the database says, on one line and without values."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.partition("\n")[0]


def upgrade(engine: Engine) -> bool:
    """Creates the tables, or migrates them to this version; returns whether there was anything to
    do. Processes that do it at the same time wait for the first one.

    Raises ConfigError with one line if the database can't be used, SchemaTooNew among them; then
    nothing has changed. Raises RecordsUnavailable if it can't be reached now.
    """
    shown = (
        str(engine.url.database)
        if engine.dialect.name == "sqlite"
        else "the database of records.url"
    )
    try:
        if engine.dialect.name == "sqlite":
            return _upgrade_sqlite(engine, Path(shown))
        with write(engine) as connection:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            return _migrate(connection, shown)
    except RecordsUnavailable as error:
        if is_damage(error.__cause__):
            _refuse_damaged(shown, error.detail)
        raise
    except SQLAlchemyError as error:
        raise ConfigError(
            f"{shown}: its tables cannot be created: {describe_error(error)}"
        ) from error
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be used for the records: {error.strerror}") from error


def _upgrade_sqlite(engine: Engine, path: Path) -> bool:
    """Creates the file if it is missing, switches it to write-ahead logging, refuses a
    damaged one, and migrates."""
    # A lock on the directory: one on the file itself would be one of SQLite's own.
    lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        for each in (path, path.parent):
            if not os.access(each, os.W_OK):
                raise ConfigError(f"{each}: cannot be used for the records: it is read-only")
        with _translate_errors(), engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            try:
                if driver.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    driver.execute("PRAGMA journal_mode = WAL")
                if path.stat().st_size <= MAX_CHECKED_BYTES:
                    [result] = driver.execute("PRAGMA quick_check(1)").fetchone()
                    if result != "ok":
                        _refuse_damaged(str(path), result.partition("\n")[0])
            except sqlite3.OperationalError as error:
                raise RecordsUnavailable(detail=str(error)) from error
            except sqlite3.DatabaseError as error:
                _refuse_damaged(str(path), str(error))
        with write(engine) as connection:
            return _migrate(connection, str(path))
    finally:
        os.close(lock)


def _refuse_damaged(shown: str, why: str) -> NoReturn:
    raise ConfigError(
        f"{shown}: is damaged or no database of records ({why}); nothing was changed; "
        "`ollama-proxy records restore FILE` replaces it by a backup"
    )


def schema_revision(connection: Connection) -> str:
    """The newest migration that has run; "" for a database without our tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or ""


def check_schema(connection: Connection, shown: str = "the database of records.url") -> None:
    """Raises ConfigError, SchemaTooNew among them, unless the tables are those of this version."""
    revision = schema_revision(connection)
    if revision > REVISION:
        raise SchemaTooNew(
            f"{shown}: a newer version of ollama-proxy has written it (schema {revision}, this one "
            f"knows {REVISION}); install that version, or restore a backup that is older"
        )
    if revision != REVISION:
        raise ConfigError(
            f"{shown}: its tables are not those of this version; run `ollama-proxy records upgrade`"
        )


def _migrate(connection: Connection, shown: str) -> bool:
    """Runs the migrations that are missing, in the transaction of the connection."""
    revision = schema_revision(connection)
    if revision >= REVISION:
        check_schema(connection, shown)
        return False
    found = metadata.tables.keys() & set(inspect(connection).get_table_names())
    if not revision and found:
        raise ConfigError(
            f"{shown}: has a table {min(found)} that is not one of the records; "
            "use another database"
        )
    # 14 MB, which only a migration needs.
    environment = importlib.import_module("alembic.runtime.environment")
    script = importlib.import_module("alembic.script").ScriptDirectory(
        MIGRATIONS, version_locations=[MIGRATIONS]
    )
    config = importlib.import_module("alembic.config").Config()

    def list_steps(current: Any, _context: object) -> Any:
        """The migrations from the current revision to the newest."""
        return script._upgrade_revs("head", current)

    with environment.EnvironmentContext(config, script, fn=list_steps) as context:
        context.configure(connection=connection, version_table=VERSION_TABLE)
        context.run_migrations()
    return True
