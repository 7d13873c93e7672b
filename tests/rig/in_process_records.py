"""Records for an application in the process of the test: the real functions on a real SQLite,
without a coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


class InProcessRecords(CoordinatorClient):
    """What a worker asks, answered at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, workers=1, start=lambda: None)
        self.engine = open_database("sqlite:records.db", directory)
        upgrade(self.engine)
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
