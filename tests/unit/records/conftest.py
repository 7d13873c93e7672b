"""What tests of the records share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from ollama_proxy.records import database


@pytest.fixture
def engine(records_url: str, tmp_path: Path) -> Iterator[Engine]:
    """An empty database of each kind; that of SQLite is in `tmp_path`."""
    opened = database.open_database(records_url, tmp_path)
    database.upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A transaction on it."""
    with database.write(engine) as opened:
        yield opened
