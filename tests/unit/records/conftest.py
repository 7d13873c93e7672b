"""What tests of the records share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from tests.rig.postgres import PostgresServer
from tests.rig.records_view import new_records


@pytest.fixture
def engine(records_url: str, tmp_path: Path) -> Iterator[Engine]:
    """An empty database of each kind; that of SQLite is in `tmp_path`."""
    with new_records(records_url, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def sqlite_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An empty database in which no test commits anything."""
    with new_records("sqlite:records.db", tmp_path_factory.mktemp("records")) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgresql_records(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """The same on PostgreSQL."""
    url = postgres_server.new_database()
    with new_records(url, tmp_path_factory.mktemp("records")) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A transaction on an empty database of each kind; the end of the test takes it back."""
    engine: Engine = request.getfixturevalue(f"{request.param}_records")
    with engine.connect() as opened, opened.begin() as transaction:
        yield opened
        transaction.rollback()
