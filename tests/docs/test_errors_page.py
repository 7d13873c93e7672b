"""docs/errors.md explains every code that an error can have, with its status."""

from __future__ import annotations

import ast
from inspect import getsource

from ollama_proxy import errors
from tests.rig.errors import gateway_errors
from tests.unit.test_documents import codes, table_with

ROWS = table_with("docs/errors.md", "`missing_token`")
#: The status of these is that of the upstream.
WITHOUT_STATUS = {"upstream_refused"}


def declared_slugs() -> set[str]:
    """Every string that the errors assign to `slug`, on the class or on `self`."""
    assigned = [
        node for node in ast.walk(ast.parse(getsource(errors))) if isinstance(node, ast.Assign)
    ]
    return {
        str(node.value.value)
        for node in assigned
        if isinstance(node.value, ast.Constant)
        and ast.unparse(node.targets[0]) in ("slug", "self.slug")
    }


def test_every_code_is_explained_and_no_other() -> None:
    assert sorted(codes(row[0])[0] for row in ROWS) == sorted(declared_slugs())


def test_every_code_has_a_cause_and_a_fix() -> None:
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


def test_statuses_are_those_of_the_errors() -> None:
    kinds = gateway_errors()
    declared = {(each.slug, str(each.status)) for each in kinds if each.slug not in WITHOUT_STATUS}
    shown = {(codes(row[0])[0], row[1]) for row in ROWS}
    assert declared <= shown


def test_codes_are_read_off_the_code() -> None:
    assert {"internal_error", "upstream_cut", "context_length_exceeded"} <= declared_slugs()
