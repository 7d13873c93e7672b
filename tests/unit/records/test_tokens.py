"""Keys in the database: made, changed, replaced and withdrawn, each time with
an entry in the audit."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, Engine

from ollama_proxy.errors import BadRequest, Conflict, GatewayError, NotFound
from ollama_proxy.records import audit, database, managed_settings, tables, tokens
from ollama_proxy.settings import Managed, Settings, with_managed

ACTOR = audit.Actor({"by": "cli:ada", "from": ""})


def create(connection: Connection, name: str = "web", **fields: Any) -> dict[str, Any]:
    return tokens.create_token(connection, name=name, fields=fields, actor=ACTOR)


def test_a_key_is_shown_once_and_kept_as_a_digest(connection: Connection) -> None:
    made = create(connection, note="for the chat page", limits={"requests_per_minute": 60})
    token = made.pop("token")
    assert made == tokens.show_token(connection, name="web")
    assert (made["prefix"], made["scopes"], made["last_used"]) == (
        token[:7],
        ["generate", "read"],
        None,
    )
    assert (made["note"], made["limits"], made["created_by"]) == (
        "for the chat page",
        {"requests_per_minute": 60},
        "cli:ada",
    )
    [row] = connection.execute(tables.tokens.select()).mappings()
    assert row["digest"] == hashlib.sha256(token.encode()).hexdigest()
    assert token not in repr([row, tokens.list_tokens(connection), audit.list_audit(connection)])


def test_workers_get_what_makes_a_token_of_the_settings(connection: Connection) -> None:
    token = create(
        connection, models=["qwen3*"], expires="2027-01-31", users={"header": "X-User"}, weight=2
    )["token"]
    managed = Managed.from_json(
        orjson.loads(orjson.dumps(managed_settings.read_managed(connection)))
    )
    merged, skipped = with_managed(Settings(), managed)
    [read] = merged.auth.tokens()
    assert (read.name, read.digest) == ("web", hashlib.sha256(token.encode()).digest())
    assert (read.models, str(read.expires), read.users.header, read.weight) == (
        ("qwen3*",),
        "2027-01-31",
        "X-User",
        2,
    )
    assert (skipped, managed.revision) == ([], 1)


def test_a_taken_name_or_token_is_a_conflict(connection: Connection) -> None:
    token = create(connection)["token"]
    with pytest.raises(Conflict, match="There is a key web already"):
        create(connection)
    digest = hashlib.sha256(token.encode()).hexdigest()
    with pytest.raises(Conflict, match="The token is that of the key web"):
        tokens.create_token(
            connection, name="other", fields={}, actor=ACTOR, digest=digest, prefix="sk-1"
        )


def test_a_token_of_another_system_comes_as_its_digest(connection: Connection) -> None:
    made = tokens.create_token(
        connection, name="old", fields={}, actor=ACTOR, digest="ab" * 32, prefix="sk-1234"
    )
    assert ("token" in made, made["prefix"]) == (False, "sk-1234")


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("a b", {}, "name must be a name of at most 64 letters"),
        ("", {}, "name must be a name"),
        ("web", {"limit": {}}, 'unknown setting "limit", did you mean "limits"'),
        ("web", {"digest": "ab" * 32}, 'unknown setting "digest"'),
        (
            "web",
            {"weight": 0, "scopes": ["x"]},
            r"weight must be a number .*; scopes\[1\] must be one of",
        ),
    ],
)
def test_what_is_not_valid_is_refused_with_its_name(
    connection: Connection, name: str, fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(BadRequest, match=text):
        create(connection, name, **fields)
    assert tokens.list_tokens(connection) == []


def test_a_change_leaves_the_other_fields_and_null_is_the_default(connection: Connection) -> None:
    create(connection, models=["m*"], limits={"concurrent": 1}, note="x")

    def change(**changes: Any) -> dict[str, Any]:
        return tokens.change_token(connection, name="web", changes=changes, actor=ACTOR)

    assert change(disabled=True)["disabled"]
    changed = change(models=None, limits={"concurrent": 2}, note=None)
    assert (changed["models"], changed["limits"], changed["note"]) == (
        None,
        {"concurrent": 2},
        None,
    )
    assert changed["disabled"]
    for wrong in ({"name": "other"}, {"created_by": "x"}, {"prefix": "x"}):
        with pytest.raises(BadRequest, match="unknown setting"):
            change(**wrong)


def test_changes_of_two_operators_at_once_are_both_kept(engine: Engine) -> None:
    """The second one waits for the end of the first, and begins with what that has written."""
    with database.write(engine) as connection:
        create(connection)
    has_begun = threading.Event()

    def disable() -> None:
        with database.write(engine) as connection:
            has_begun.set()
            tokens.change_token(connection, name="web", changes={"disabled": True}, actor=ACTOR)

    with ThreadPoolExecutor(1) as pool:
        with database.write(engine) as connection:
            tokens.change_token(connection, name="web", changes={"note": "first"}, actor=ACTOR)
            second = pool.submit(disable)
            # On SQLite it does not even begin.
            is_waiting = engine.dialect.name == "sqlite" or has_begun.wait(5)
            with suppress(TimeoutError):
                second.result(0.3)
            assert is_waiting and not second.done(), "it did not wait"
        second.result(10)
    with database.read(engine) as connection:
        kept = tokens.show_token(connection, name="web")
        last, *_ = audit.list_audit(connection)["rows"]
    assert (kept["note"], kept["disabled"]) == ("first", True)
    assert (last["before"], last["after"]) == ({"disabled": False}, {"disabled": True})


def test_many_changes_at_once_lose_none(engine: Engine) -> None:
    """Two operators change different fields, each ten times."""
    with database.write(engine) as connection:
        create(connection)

    def change(field: str, values: Sequence[object]) -> None:
        for value in values:
            with database.write(engine) as connection:
                tokens.change_token(connection, name="web", changes={field: value}, actor=ACTOR)

    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                change, ("note", "weight"), ([str(each) for each in range(10)], list(range(1, 11)))
            )
        )
    with database.read(engine) as connection:
        kept = tokens.show_token(connection, name="web")
        entries = audit.list_audit(connection)["rows"]
    assert (kept["note"], kept["weight"], len(entries)) == ("9", 10, 21)
    assert {tuple(entry["after"]) for entry in entries[:-1]} == {("note",), ("weight",)}, (
        "one has undone the other's"
    )


def test_a_rotated_key_has_another_token(connection: Connection) -> None:
    made = create(connection, note="x")
    rotated = tokens.rotate_token(connection, name="web", actor=ACTOR)
    assert rotated["token"] != made["token"]
    assert {**rotated, "token": "", "prefix": ""} == {**made, "token": "", "prefix": ""}
    [known] = tokens.read_digests(connection)
    assert orjson.loads(orjson.dumps(known)) == known  # as frames do
    assert known["digest"] == hashlib.sha256(rotated["token"].encode()).hexdigest()


def test_a_deleted_key_is_gone(connection: Connection) -> None:
    create(connection)
    tokens.delete_token(connection, name="web", actor=ACTOR)
    assert tokens.list_tokens(connection) == []


@pytest.mark.parametrize(
    "act",
    [
        lambda connection: tokens.show_token(connection, name="web"),
        lambda connection: tokens.change_token(connection, name="web", changes={}, actor=ACTOR),
        lambda connection: tokens.rotate_token(connection, name="web", actor=ACTOR),
        lambda connection: tokens.delete_token(connection, name="web", actor=ACTOR),
    ],
)
def test_a_key_that_is_not_there_is_not_found(
    engine: Engine, act: Callable[[Connection], object]
) -> None:
    with pytest.raises(NotFound, match="There is no key web"), database.write(engine) as connection:
        act(connection)
    with database.read(engine) as connection:
        assert managed_settings.read_revision(connection) == 0
        assert audit.list_audit(connection)["rows"] == []


def test_every_change_is_audited_and_counted(engine: Engine) -> None:
    changes: list[Callable[[Connection], object]] = [
        create,
        lambda connection: tokens.change_token(
            connection, name="web", changes={"disabled": True}, actor=ACTOR
        ),
        lambda connection: tokens.rotate_token(connection, name="web", actor=ACTOR),
        lambda connection: tokens.delete_token(connection, name="web", actor=ACTOR),
    ]
    for change in changes:
        with database.write(engine) as connection:
            change(connection)
    with pytest.raises(GatewayError), database.write(engine) as connection:
        create(connection)
        create(connection)
    with database.read(engine) as connection:
        rows = audit.list_audit(connection)["rows"]
        assert managed_settings.read_revision(connection) == 4
    assert [(row["action"], row["subject"], row["by"]) for row in reversed(rows)] == [
        (action, "tokens.web", "cli:ada") for action in ("create", "change", "rotate", "delete")
    ]
    assert (rows[2]["before"], rows[2]["after"]) == ({"disabled": False}, {"disabled": True})
    assert list(rows[1]["after"]) == ["prefix"]


def test_last_use_is_that_of_the_name(connection: Connection) -> None:
    create(connection)
    connection.execute(tables.token_uses.insert().values(token="web", last_used=1_800_000_000_000))
    [row] = tokens.list_tokens(connection)
    assert row["last_used"] == "2027-01-15T08:00:00.000Z"
