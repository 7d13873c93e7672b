"""What tests of the records share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from ollama_proxy.records import database
from tests.rig.records_view import new_records


@pytest.fixture
def engine(records_url: str, tmp_path: Path) -> Iterator[Engine]:
    """An empty database of each kind; that of SQLite is in `tmp_path`."""
    with new_records(records_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A transaction on it."""
    with database.write(engine) as opened:
        yield opened
