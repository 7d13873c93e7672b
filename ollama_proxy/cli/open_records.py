"""The database of the records, as commands use it: also while the gateway runs."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from ollama_proxy.errors import ConfigError, GatewayError, RecordsUnavailable
from ollama_proxy.records import audit, database
from ollama_proxy.settings import Settings, state_path


@contextmanager
def open_engine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Engine]:
    """The database of `records.url`, whether or not it exists. Raises ConfigError
    if nothing is recorded."""
    if settings.records.url is None:
        raise ConfigError("records.url is null, so nothing is recorded")
    engine = database.open_database(settings.records.url.secret, state_path(settings, environ))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def open_records(settings: Settings, environ: Mapping[str, str]) -> Iterator[Engine]:
    """The database of `records.url`, which must exist. What goes wrong in the block because of the
    database, or of an argument, is raised as a ConfigError with one line."""
    try:
        with open_engine(settings, environ) as engine:
            if engine.dialect.name == "sqlite":
                path = Path(engine.url.database or "")
                if not path.exists():  # as another user, a command must not create one
                    why = (
                        "there is no database yet; start the gateway, or run "
                        "`ollama-proxy records upgrade`"
                    )
                    raise ConfigError(f"{path}: {why}")
                if not os.access(path, os.R_OK | os.W_OK):
                    raise ConfigError(
                        f"{path}: cannot be used; run the command as the user of the gateway"
                    )
            with database.read(engine) as connection:
                database.check_schema(connection)
            yield engine
    except RecordsUnavailable as error:
        raise ConfigError(f"{settings.records.url}: is not available: {error.detail}") from error
    except GatewayError as error:
        raise ConfigError(str(error)) from error


def find_actor() -> audit.Actor:
    """Who runs the command, for the audit."""
    try:
        login = os.getlogin()  # also behind sudo
    except OSError:
        login = pwd.getpwuid(os.getuid()).pw_name
    return {"by": f"cli:{login}", "from": ""}
