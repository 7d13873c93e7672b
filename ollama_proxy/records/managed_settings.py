"""Models and upstreams that are managed while the gateway runs, and all that workers
are told when they change.

All functions work in the transaction of the connection. A value is what the file would have under
this name, and is checked in the same way; it holds no secret, because the key of an upstream is in
a variable of the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select, update

from ollama_proxy.errors import BadRequest, ConfigError, Conflict, NotFound
from ollama_proxy.hub import Json
from ollama_proxy.records.audit import Actor, add, note_change
from ollama_proxy.records.tables import managed_settings, meta
from ollama_proxy.records.times import format_ms, now_ms
from ollama_proxy.records.tokens import read_digests
from ollama_proxy.settings import find_field, read_model, read_upstream
from ollama_proxy.texts import Translatable

SettingKind = Literal["models", "upstreams"]

_READERS: dict[str, Callable[[str, Json], object]] = {
    "models": read_model,
    "upstreams": read_upstream,
}


def list_settings(connection: Connection, *, kind: SettingKind) -> list[dict[str, Json]]:
    """All entries of a kind, by name: `{name, value, changed_at, changed_by}`."""
    table = managed_settings
    query = select(table).where(table.c.kind == kind).order_by(table.c.name)
    return [
        {
            "name": row.name,
            "value": row.value,
            "changed_at": format_ms(row.changed_at),
            "changed_by": row.changed_by,
        }
        for row in connection.execute(query)
    ]


def create_setting(
    connection: Connection, *, kind: SettingKind, name: str, value: dict[str, Json], actor: Actor
) -> dict[str, Json]:
    """Adds an entry, and returns its value. Raises BadRequest, and Conflict if it is there."""
    note_change(connection)
    if _find(connection, kind, name) is not None:
        raise Conflict(
            Translatable("There is an entry %(name)s already.", name=f"{kind}.{name}"), param="name"
        )
    return _store(connection, kind, name, None, value, actor)


def put_setting(
    connection: Connection, *, kind: SettingKind, name: str, value: dict[str, Json], actor: Actor
) -> dict[str, Json]:
    """Adds an entry, or replaces it, and returns its value. Raises BadRequest."""
    note_change(connection)
    return _store(connection, kind, name, _find(connection, kind, name), value, actor)


def change_setting(
    connection: Connection, *, kind: SettingKind, name: str, changes: dict[str, Json], actor: Actor
) -> dict[str, Json]:
    """Changes some fields of an entry, and returns its value; null removes a field. Raises
    NotFound and BadRequest."""
    note_change(connection)
    before = _find(connection, kind, name)
    if before is None:
        raise NotFound(
            Translatable("There is no managed entry %(name)s.", name=f"{kind}.{name}"), param="name"
        )
    value = {field: each for field, each in {**before, **changes}.items() if each is not None}
    return _store(connection, kind, name, before, value, actor)


def delete_setting(connection: Connection, *, kind: SettingKind, name: str, actor: Actor) -> None:
    """Removes an entry. Raises NotFound."""
    note_change(connection)
    before = _find(connection, kind, name)
    if before is None:
        raise NotFound(Translatable("There is no managed entry %(name)s.", name=f"{kind}.{name}"))
    connection.execute(delete(managed_settings).where(_is(kind, name)))
    add(connection, actor, "delete", f"{kind}.{name}", before=before)


def read_revision(connection: Connection) -> int:
    """A number that grows with each change of keys or managed settings."""
    return int(connection.execute(select(meta.c.revision)).scalar_one())


def read_managed(connection: Connection) -> dict[str, Json]:
    """Everything that is managed, as workers are told: `{revision, tokens, models, upstreams}`."""
    entries: dict[str, dict[str, Json]] = {"models": {}, "upstreams": {}}
    for kind, name, value in connection.execute(
        select(managed_settings.c.kind, managed_settings.c.name, managed_settings.c.value)
    ):
        entries[kind][name] = value
    return {"revision": read_revision(connection), "tokens": read_digests(connection), **entries}


def _store(
    connection: Connection,
    kind: SettingKind,
    name: str,
    before: dict[str, Json] | None,
    value: dict[str, Json],
    actor: Actor,
) -> dict[str, Json]:
    """Checks a value, and stores it in the place of the one before; returns it."""
    try:
        _READERS[kind](name, value)
    except ConfigError as error:
        raise BadRequest(
            "; ".join(error.complaints), param=find_field(error.complaints[0])
        ) from None
    if kind == "upstreams":
        value = {field: each for field, each in value.items() if field != "name"}
    values = {"value": value, "changed_at": now_ms(), "changed_by": actor["by"]}
    if before is None:
        connection.execute(insert(managed_settings).values(kind=kind, name=name, **values))
    else:
        connection.execute(update(managed_settings).where(_is(kind, name)).values(values))
    add(
        connection, actor, "create" if before is None else "change", f"{kind}.{name}", before, value
    )
    return value


def _find(connection: Connection, kind: str, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = connection.execute(
        select(managed_settings.c.value).where(_is(kind, name))
    ).scalar()
    return found


def _is(kind: str, name: str) -> Any:
    return (managed_settings.c.kind == kind) & (managed_settings.c.name == name)
