"""The audit in the database."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from ollama_proxy.errors import BadRequest
from ollama_proxy.records.audit import Actor, add, list_audit

ACTOR = Actor({"by": "admin", "from": "10.0.0.7"})


def test_entries_come_in_pages_newest_first(connection: Connection) -> None:
    for number in range(5):
        add(connection, ACTOR, "create", f"tokens.t{number}", after={"name": f"t{number}"})
    found, cursor = list[str](), None
    while True:
        page = list_audit(connection, limit=2, cursor=cursor)
        found += [row["subject"] for row in page["rows"]]
        if (cursor := page["cursor"]) is None:
            break
    assert found == [f"tokens.t{number}" for number in (4, 3, 2, 1, 0)]


def test_an_entry_has_who_from_where_and_what_differs(connection: Connection) -> None:
    add(connection, ACTOR, "change", "tokens.web", {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    [row] = list_audit(connection)["rows"]
    assert (row["by"], row["from"], row["action"], row["subject"]) == (
        "admin",
        "10.0.0.7",
        "change",
        "tokens.web",
    )
    assert (row["before"], row["after"]) == ({"b": 2, "c": None}, {"b": 3, "c": 4})
    assert row["at"].endswith("Z")


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1" * 30, "١"])
def test_a_cursor_of_somebodys_own_is_refused(connection: Connection, cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        list_audit(connection, cursor=cursor)
