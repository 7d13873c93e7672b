"""A real PostgreSQL in a temporary cluster, which a test can kill, pause and start again."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from tests.rig.deadline import wait_until
from tests.rig.gateway import free_port
from tests.rig.programs import require_program

#: It refuses to run as root, and is then run as this user, whom Debian's package creates.
_USER = "postgres"

#: Of no use to a test: what is killed here is a process, not the machine.
_SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "50",
    "shared_buffers": "16MB",
}


class PostgresServer:
    """PostgreSQL on 127.0.0.1:`port`; `new_database` gives each test one of its own."""

    def __init__(self) -> None:
        self._initdb, self._postgres = find_program("initdb"), find_program("postgres")
        self._directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._as_user: list[str] = []
        if os.getuid() == 0:
            account = pwd.getpwnam(_USER)
            os.chown(self._directory, account.pw_uid, account.pw_gid)
            setpriv = require_program("setpriv")
            self._as_user = [
                setpriv,
                f"--reuid={_USER}",
                f"--regid={_USER}",
                "--clear-groups",
                "--",
            ]
        self.port = free_port()
        self._names = itertools.count(1)
        self._reused = ""
        self._process: subprocess.Popen[bytes] | None = None
        options = [
            "--username=records",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        self._run([self._initdb, *options, f"--pgdata={self._data}"])

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, command: list[str]) -> None:
        done = subprocess.run([*self._as_user, *command], cwd="/", capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def start(self) -> PostgresServer:
        """Starts it and waits until it answers."""
        settings = {
            **_SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._postgres, "-D", str(self._data), *options],
                cwd="/",
                stdout=log,
                stderr=log,
            )
        wait_until(
            self.is_answering, 30, lambda: (self._directory / "log").read_text(errors="replace")
        )
        return self

    def is_answering(self) -> bool:
        """Whether it accepts a connection within a second."""
        try:
            self._connect(1).close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, timeout_s: int = 10) -> psycopg.Connection:
        return psycopg.connect(
            self._address("postgres"), connect_timeout=timeout_s, autocommit=True
        )

    def _address(self, database: str) -> str:
        return f"postgresql://records:a-password@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"records_{next(self._names)}"
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._address(name)

    def empty_database(self) -> str:
        """The URL of a database that tests use one after the other: everything in it is removed,
        and connections to it end. A new one takes twenty times as long."""
        if not self._reused:
            self._reused = self.new_database()
        with psycopg.connect(self._reused, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self._reused

    def drop_database(self, url: str) -> None:
        """Removes a database; connections to it end."""
        name = url.rpartition("/")[2]
        with self._connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    @property
    def _pids(self) -> list[int]:
        """Its main process, and those that answer connections."""
        assert self._process is not None, "PostgreSQL was not started"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(
            encoding="ascii"
        )
        return [self._process.pid, *map(int, children.split())]

    def pause(self) -> None:
        """Stops it as it is (SIGSTOP): connections stay, and nothing is answered."""
        self._paused = self._pids
        for pid in self._paused:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        wait_until(self.is_answering, 10, "PostgreSQL does not answer after SIGCONT")

    def kill(self) -> None:
        """Ends it without notice (SIGKILL), with all its processes; `start`
        recovers what was committed."""
        for pid in (pids := self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(timeout=10)
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10, "PostgreSQL goes on"
        )

    def stop(self) -> None:
        """Ends it and its connections, and waits for its end."""
        assert self._process is not None, "PostgreSQL was not started"
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def find_program(name: str) -> str:
    """The path of one of its programs, which Debian keeps apart by version; the newest one. Skips
    like `require_program`."""
    found = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return str(newest) if newest else require_program(name)
