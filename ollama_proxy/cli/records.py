"""The commands that keep the records: upgrade, check, backup and restore."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Engine

from ollama_proxy.cli.open_records import open_engine
from ollama_proxy.coordination import LOCK_NAME
from ollama_proxy.errors import ConfigError, RecordsUnavailable
from ollama_proxy.records import backup, check, database
from ollama_proxy.settings import load_settings, state_directory

#: Exit statuses: the check has found a problem; the database or a file can't be used; the database
#: can't be reached now (EX_TEMPFAIL of sysexits.h).
EXIT_PROBLEM, EXIT_UNUSABLE, EXIT_UNAVAILABLE = 1, 2, 75


def run_action(action: str, file: Path | None, environ: Mapping[str, str]) -> int:
    """Runs one of the commands, with the file that `backup` and `restore` take; returns the exit
    status. Raises ConfigError."""
    try:
        settings = load_settings(environ=environ)
        with open_engine(settings, environ) as engine:
            directory = state_directory(settings, environ)
            if action == "upgrade":
                print("the tables are new now" if database.upgrade(engine) else "nothing to do")
            elif action == "check":
                return _check(engine, directory)
            elif file is not None and action == "backup":
                backup.back_up(engine, file)
            elif file is not None:
                _restore(engine, directory, file)
    except RecordsUnavailable as error:
        print(f"the database of the records is not available: {error.detail}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except OSError as error:
        print(f"{error.filename or file}: {error.strerror}", file=sys.stderr)
        return EXIT_UNUSABLE
    return 0


def _check(engine: Engine, directory: Path) -> int:
    report = check.check_records(engine, directory)
    for fact in report.facts:
        print(fact)
    for problem in report.problems:
        print(f"problem: {problem}")
    print("OK" if not report.problems else f"{len(report.problems)} problems")
    return EXIT_PROBLEM if report.problems else 0


def _restore(engine: Engine, directory: Path, file: Path) -> None:
    # The coordinator's own lock: none runs now, and none can start before this is over.
    lock = os.open(
        directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "the gateway uses the records: stop it first; its coordinator ends 30 s "
                "after the last worker"
            ) from None
        kept = backup.restore(engine, file)
    finally:
        os.close(lock)
    print(f"restored from {file}" + (f"; what was there is {kept}" if kept else ""))
