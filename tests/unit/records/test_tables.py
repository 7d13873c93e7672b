"""The tables are those that the migrations create."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from ollama_proxy.records import database, tables
from tests.rig.tables import each_row


def test_migrations_create_the_tables(records_url: str, tmp_path: Path) -> None:
    engine = database.open_database(records_url, tmp_path)
    database.upgrade(engine)
    with database.read(engine) as connection:
        options = {"compare_type": True, "version_table": database.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []
        assert connection.execute(tables.meta.select()).all() == [(0, 0, 0)]
    engine.dispose()


@each_row(
    ("state", "is_error"),
    [
        ("ok", False),
        ("client_gone", False),
        ("upstream_error", True),
        ("timeout", True),
        ("refused", True),
        ("aborted", True),
        ("lost", True),
    ],
)
def test_errors_are_exchanges_that_the_gateway_or_an_upstream_did_not_complete(
    state: str, is_error: bool
) -> None:
    assert (state not in tables.GOOD_STATES) is is_error
