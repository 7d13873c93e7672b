"""The first migration is the beginning of one line of migrations, which ends with the
schema of this version."""

from __future__ import annotations

from alembic.script import ScriptDirectory

from ollama_proxy.records import database, tables
from ollama_proxy.records.migrations import r0001_first_tables


def test_migrations_are_one_line_that_ends_with_this_version() -> None:
    script = ScriptDirectory(database.MIGRATIONS, version_locations=[database.MIGRATIONS])
    steps = [each.revision for each in script.walk_revisions()]
    assert (steps[0], steps[-1]) == (tables.REVISION, r0001_first_tables.revision)
    assert steps == sorted(steps, reverse=True)  # `check_schema` compares them as text
