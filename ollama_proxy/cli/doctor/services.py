"""Checks of what the gateway needs besides its upstreams: the coordinator, Redis, and the
database of the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import redis

from ollama_proxy.cli.doctor.door import FAILURES, Door
from ollama_proxy.cli.doctor.finding import Finding, Level
from ollama_proxy.errors import ConfigError, RecordsUnavailable
from ollama_proxy.records import database
from ollama_proxy.settings import Settings, state_path


def check_reported(door: Door) -> Iterator[Finding]:
    """Yields the problems that the gateway itself reports to tokens that may manage it."""
    try:
        problems = door.ask("/health").document.get("problems") or []
    except FAILURES:
        return  # reported by the checks of the address
    for problem in problems:
        part = f"upstream {problem['upstream']}" if problem.get("upstream") else "gateway"
        yield Finding(Level.WARNING, part, str(problem.get("what")), str(problem.get("mend") or ""))


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Checks that Redis answers, if several machines share it."""
    url = settings.state.url
    if url is None:
        return
    try:
        with redis.Redis.from_url(
            url.secret, socket_timeout=2.0, socket_connect_timeout=2.0
        ) as client:
            client.ping()
    except redis.RedisError as error:
        mend = "start Redis, or correct state.url"
        what = (
            f"{url} does not answer ({type(error).__name__}); each machine "
            "grants its share meanwhile"
        )
        yield Finding(Level.FAULT, "Redis", what, mend)


def check_records(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Checks that the database of the records can be used, if there is one already."""
    url, directory = settings.records.url, state_path(settings, environ)
    if url is None:
        return
    engine = database.open_database(url.secret, directory)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return
    try:
        with database.read(engine) as connection:
            database.check_schema(connection)
    except (ConfigError, RecordsUnavailable) as error:
        mend = "start the database, correct records.url, or see `ollama-proxy records check`"
        detail = error.detail if isinstance(error, RecordsUnavailable) else str(error)
        yield Finding(Level.FAULT, "records", f"usage and keys can't be read: {detail}", mend)
    finally:
        engine.dispose()
