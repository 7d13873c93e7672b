"""Records for an application in the process of the test: the real functions on a real SQLite,
without a coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine

from ollama_proxy.coordination import CoordinatorClient, Subject
from ollama_proxy.coordination.limits import Limiter
from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.records import audit
from ollama_proxy.records.audit import list_audit
from ollama_proxy.records.database import open_database, upgrade, write
from ollama_proxy.records.managed_settings import (
    change_setting,
    create_setting,
    delete_setting,
    list_settings,
    put_setting,
)
from ollama_proxy.records.reports import last_used, requests, usage
from ollama_proxy.records.tokens import (
    change_token,
    create_token,
    delete_token,
    list_tokens,
    rotate_token,
)

CALLS: dict[str, Any] = {
    each.__name__: each
    for each in (
        *(usage, requests, last_used, list_audit, list_settings, create_setting),
        *(put_setting, change_setting, delete_setting),
        *(list_tokens, create_token, change_token, delete_token, rotate_token),
    )
} | {"add_audit": audit.add}


@cache
def empty_sqlite() -> bytes:
    """A database of SQLite with the tables of this version, as its file."""
    with TemporaryDirectory() as directory:
        engine = open_database("sqlite:records.db", Path(directory))
        upgrade(engine)
        engine.dispose()
        return Path(directory, "records.db").read_bytes()


def open_records(url: str, directory: Path) -> Engine:
    """The new database at this address, with its tables; that of SQLite is a copy."""
    engine = open_database(url, directory)
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        path.touch(0o600)
        path.write_bytes(empty_sqlite())
    else:
        upgrade(engine)
    return engine


class InProcessRecords(CoordinatorClient):
    """What a worker asks, answered at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, workers=1, start=lambda: None)
        self.engine = open_records("sqlite:records.db", directory)
        #: The calls so far, with their arguments.
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.is_down = False
        self._limiter = Limiter()

    def query(self, call: str, **arguments: Any) -> Any:
        """The result of a call of the records."""
        self.asked.append((call, arguments))
        if self.is_down:
            raise RecordsUnavailable
        with write(self.engine) as connection:
            return CALLS[call](connection, **arguments)

    def status(self) -> dict[str, Any]:
        """Nothing runs."""
        return {}

    def read_limits(self, subjects: Sequence[Subject]) -> dict[str, Any]:
        """Nothing was used."""
        return self._limiter.describe(subjects)
