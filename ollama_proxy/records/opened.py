"""An open database, and everything that the coordinator does with it. Only its threads import this:
each method runs in one, and several may run at a time, but only one `import_some`.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

from ollama_proxy.coordination import Spent
from ollama_proxy.errors import NotFound
from ollama_proxy.hub import Json
from ollama_proxy.records.calls import CALLS
from ollama_proxy.records.database import open_database, read, upgrade, write
from ollama_proxy.records.importer import Importer
from ollama_proxy.records.managed_settings import read_managed, read_revision
from ollama_proxy.records.reports import sums_since
from ollama_proxy.records.retention import delete_old


class Opened:
    """The database of some settings, with the tables of this version."""

    def __init__(self, directory: Path, settings: Mapping[str, Json]) -> None:
        """`settings`: the section `records`. Raises ConfigError and RecordsUnavailable."""
        self._engine = open_database(settings["url"], directory)
        try:
            upgrade(self._engine)
            self._importer = Importer(self._engine, directory, settings["timezone"])
            self._retention_days = int(settings["retention_days"])
            # A collection that looks at all of SQLAlchemy would hold up slots.
            gc.freeze()
        except Exception:  # whatever it is, no connection stays
            self.close()
            raise

    def import_some(self) -> int:
        """Imports a batch of what workers have written; returns how many lines that were. 0:
        there is nothing left."""
        return self._importer.step()

    def tidy(self) -> None:
        """Removes what is older than the configuration says."""
        delete_old(self._engine, self._retention_days)

    def read_managed(self, known: int | None) -> Mapping[str, Json] | None:
        """The managed tokens and settings, with their `revision`; None: that is the known one."""
        with read(self._engine) as connection:
            return None if read_revision(connection) == known else read_managed(connection)

    def read_used(self, start_s: float) -> Mapping[str, Spent]:
        """What each subject has used since the beginning of an hour."""
        with read(self._engine) as connection:
            return sums_since(connection, int(start_s * 1000))

    def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """The result of one of CALLS. Raises GatewayError."""
        call = CALLS.get(name)
        if call is None:
            raise NotFound(f"This coordinator has no call {name}; it is of another version.")
        with (write if call.writes else read)(self._engine) as connection:
            return call.function(connection, **arguments)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()
