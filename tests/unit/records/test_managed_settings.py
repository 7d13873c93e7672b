"""Models and upstreams in the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine

from ollama_proxy.errors import BadRequest, Conflict, NotFound
from ollama_proxy.records import audit, database, managed_settings
from ollama_proxy.records.managed_settings import (
    change_setting,
    create_setting,
    delete_setting,
    list_settings,
    put_setting,
    read_managed,
)

ACTOR = audit.Actor({"by": "admin", "from": "10.0.0.7"})
BOX = {"base_url": "http://10.0.0.6:11434", "concurrency": 2}


def test_entries_are_added_replaced_and_removed(connection: Connection) -> None:
    put_setting(connection, kind="models", name="coder", value={"target": "box1:m"}, actor=ACTOR)
    put_setting(
        connection, kind="upstreams", name="box2", value={"name": "box2", **BOX}, actor=ACTOR
    )
    put_setting(
        connection, kind="upstreams", name="box2", value={**BOX, "drain": True}, actor=ACTOR
    )
    assert read_managed(connection) == {
        "revision": 3,
        "tokens": [],
        "models": {"coder": {"target": "box1:m"}},
        "upstreams": {"box2": {**BOX, "drain": True}},
    }
    [row] = list_settings(connection, kind="upstreams")
    assert (row["name"], row["value"], row["changed_by"]) == (
        "box2",
        {**BOX, "drain": True},
        "admin",
    )
    delete_setting(connection, kind="upstreams", name="box2", actor=ACTOR)
    assert list_settings(connection, kind="upstreams") == []
    rows = audit.list_audit(connection)["rows"]
    assert [(row["action"], row["subject"]) for row in rows] == [
        ("delete", "upstreams.box2"),
        ("change", "upstreams.box2"),
        ("create", "upstreams.box2"),
        ("create", "models.coder"),
    ]
    assert (rows[1]["before"], rows[1]["after"]) == ({"drain": None}, {"drain": True})


def test_a_change_leaves_the_other_fields_and_null_removes_one(connection: Connection) -> None:
    create_setting(
        connection, kind="upstreams", name="box2", value={**BOX, "drain": True}, actor=ACTOR
    )
    changed = change_setting(
        connection,
        kind="upstreams",
        name="box2",
        changes={"concurrency": 4, "drain": None},
        actor=ACTOR,
    )
    assert changed == BOX | {"concurrency": 4}
    assert read_managed(connection)["upstreams"] == {"box2": changed}
    [row, _] = audit.list_audit(connection)["rows"]
    assert (row["action"], row["before"]) == ("change", {"concurrency": 2, "drain": True})
    with pytest.raises(BadRequest, match="concurrency"):
        change_setting(
            connection, kind="upstreams", name="box2", changes={"concurrency": 0}, actor=ACTOR
        )


def test_an_entry_that_is_there_is_not_created_again(connection: Connection) -> None:
    create_setting(connection, kind="upstreams", name="box2", value={**BOX}, actor=ACTOR)
    with pytest.raises(Conflict, match="There is an entry upstreams.box2 already"):
        create_setting(
            connection, kind="upstreams", name="box2", value={**BOX, "drain": True}, actor=ACTOR
        )
    assert read_managed(connection)["upstreams"] == {"box2": BOX}


def test_changes_at_once_lose_none(engine: Engine) -> None:
    """Two operators change different fields, each ten times."""
    with database.write(engine) as connection:
        create_setting(connection, kind="upstreams", name="box2", value={**BOX}, actor=ACTOR)

    def change(field: str) -> None:
        for value in range(1, 11):
            with database.write(engine) as connection:
                change_setting(
                    connection, kind="upstreams", name="box2", changes={field: value}, actor=ACTOR
                )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(change, ("concurrency", "weight")))
    with database.read(engine) as connection:
        kept = read_managed(connection)
        entries = audit.list_audit(connection)["rows"]
    assert kept["upstreams"] == {"box2": BOX | {"concurrency": 10, "weight": 10}}
    assert (kept["revision"], len(entries)) == (21, 21)
    assert {tuple(entry["after"]) for entry in entries[:-1]} == {("concurrency",), ("weight",)}


@pytest.mark.parametrize(
    ("kind", "name", "value", "text"),
    [
        ("models", "coder", {"targets": "m"}, 'unknown setting "targets", did you mean "target"'),
        ("models", "", {}, "the name of the model must be one line of text"),
        ("upstreams", "box 2", BOX, "name must be a name"),
        ("upstreams", "box2", {"name": "box3", **BOX}, "name must be box2, or absent"),
        ("upstreams", "box2", {**BOX, "api_key": "secret-1"}, 'unknown setting "api_key"'),
        ("upstreams", "box2", {**BOX, "api_key_env": "PATH"}, "api_key_env must end in _API_KEY"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_name(
    connection: Connection,
    kind: managed_settings.SettingKind,
    name: str,
    value: dict[str, object],
    text: str,
) -> None:
    with pytest.raises(BadRequest, match=text) as raised:
        put_setting(connection, kind=kind, name=name, value=value, actor=ACTOR)
    assert "secret-1" not in str(raised.value)
    assert list_settings(connection, kind=kind) == []


def test_an_entry_that_is_not_there_is_not_found(connection: Connection) -> None:
    with pytest.raises(NotFound, match="There is no managed entry models.coder"):
        delete_setting(connection, kind="models", name="coder", actor=ACTOR)
    with pytest.raises(NotFound, match="There is no managed entry models.coder"):
        change_setting(
            connection, kind="models", name="coder", changes={"target": "m"}, actor=ACTOR
        )
