"""The records in processes of their own, which a test can start at once and kill.

`upgrade STATE [MIGRATIONS REVISION]`: for each URL on standard input, some processes upgrade its
database at once. `import STATE URL`: for each line, a new process imports the spool until it is
killed; its id is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import alembic.config
import alembic.runtime.environment
import alembic.script  # noqa: F401  # a forked process has what a migration needs

from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.records import database, importer, tables
from tests.rig.deadline import wait_until

#: Processes that upgrade a database at once.
UPGRADES = 4

#: Lines of a transaction: few, so that a kill hits between two, or in one.
_LINES = 10


def upgrade(directory: Path, *newer: str) -> None:
    """For each URL, forks `UPGRADES` processes that have everything imported; each upgrades the
    database and prints `True`, `False` or the error. `newer`: a directory of migrations that this
    version does not know, and its newest revision."""
    if newer:
        database.MIGRATIONS, database.REVISION = Path(newer[0]), newer[1]
        assert tables.REVISION != database.REVISION
    for url in sys.stdin:
        processes = []
        for _ in range(UPGRADES):
            if not (process := os.fork()):
                _upgrade(directory, url.strip())
                os._exit(0)
            processes.append(process)
        for process in processes:
            os.waitpid(process, 0)


def _upgrade(directory: Path, url: str) -> None:
    engine = database.open_database(url, directory)
    try:
        print(database.upgrade(engine), flush=True)
    except Exception as error:  # the test compares it with what it expects
        print(repr(error), flush=True)
    finally:
        engine.dispose()  # a server has a limit of connections


def import_forever(directory: Path, url: str) -> None:
    """Forks a process for each line: it has everything imported, and starts
    within a millisecond."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        process = os.fork()
        if not process:
            _import(directory, url)
        print(process, flush=True)


def _import(directory: Path, url: str) -> None:
    importer.MAX_LINES = _LINES
    started = importer.Importer(database.open_database(url, directory), directory)
    while True:
        try:
            if not started.step():
                time.sleep(0.002)
        except RecordsUnavailable:
            time.sleep(0.05)


class ImportingProcess:
    """Imports the spool of a state directory, in one process after the other."""

    def __init__(self, directory: Path, url: str) -> None:
        command = [sys.executable, "-m", "tests.rig.records_process", "import", str(directory), url]
        self._forker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pid = 0

    def start(self) -> None:
        """Starts a process that imports."""
        assert self._forker.stdin and self._forker.stdout
        print(file=self._forker.stdin, flush=True)
        self._pid = int(self._forker.stdout.readline())

    def kill(self) -> None:
        """Ends it without notice (SIGKILL)."""
        os.kill(self._pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{self._pid}").exists(), 10, "the importer goes on")

    def __enter__(self) -> ImportingProcess:
        return self

    def __exit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._pid and Path(f"/proc/{self._pid}").exists():
            self.kill()
        self._forker.communicate(timeout=20)


if __name__ == "__main__":
    {"upgrade": upgrade, "import": import_forever}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
