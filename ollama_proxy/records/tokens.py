"""Keys: tokens that are made, changed and withdrawn while the gateway runs.

All functions work in the transaction of the connection. A token is shown by the function that makes
it, and by nothing after that: the table has its SHA-256 and its first characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ollama_proxy.errors import BadRequest, ConfigError, Conflict, NotFound
from ollama_proxy.hub import Json
from ollama_proxy.records.audit import Actor, add, note_change
from ollama_proxy.records.tables import token_uses, tokens
from ollama_proxy.records.times import format_ms, now_ms
from ollama_proxy.settings import (
    check_key_name,
    find_field,
    identify_token,
    new_token,
    read_key,
    write_key,
)
from ollama_proxy.texts import Translatable

#: The columns that are the same as in the file.
FIELDS = (
    "scopes",
    "models",
    "expires",
    "weight",
    "priority",
    "limits",
    "users",
    "note",
    "disabled",
)

_ROWS = select(tokens, token_uses.c.last_used).outerjoin(
    token_uses, token_uses.c.token == tokens.c.name
)


def list_tokens(connection: Connection) -> list[dict[str, Json]]:
    """Every key, by name, with when it was last used."""
    return [_describe(row._asdict()) for row in connection.execute(_ROWS.order_by(tokens.c.name))]


def show_token(connection: Connection, *, name: str) -> dict[str, Json]:
    """One key. Raises NotFound."""
    row = connection.execute(_ROWS.where(tokens.c.name == name)).first()
    if row is None:
        raise NotFound(Translatable("There is no key %(name)s.", name=name))
    return _describe(row._asdict())


def create_token(
    connection: Connection,
    *,
    name: str,
    fields: Mapping[str, Json],
    actor: Actor,
    digest: str = "",
    prefix: str = "",
) -> dict[str, Json]:
    """Makes a key, and returns it with its `token`. `fields`: see `KeyFields`; `digest`: of a token
    that exists elsewhere, which is then not returned. Raises BadRequest, and Conflict if the name
    or the token is taken."""
    note_change(connection)
    values = _check(fields, name)
    token, identity = _identify(digest, prefix)
    row = {
        **values,
        **identity,
        "name": name,
        "created_at": now_ms(),
        "created_by": actor["by"],
    }
    taken = select(tokens.c.name).where(
        (tokens.c.name == name) | (tokens.c.digest == row["digest"])
    )
    if (other := connection.execute(taken).scalar()) is not None:
        if other == name:
            raise Conflict(Translatable("There is a key %(name)s already.", name=name))
        raise Conflict(Translatable("The token is that of the key %(name)s.", name=other))
    connection.execute(insert(tokens).values(row))
    made = _describe(row)
    add(connection, actor, "create", f"tokens.{name}", after=made)
    return {"token": token, **made} if token else made


def change_token(
    connection: Connection, *, name: str, changes: Mapping[str, Json], actor: Actor
) -> dict[str, Json]:
    """Changes some fields of a key, and returns it; null sets a field to its default. Raises
    NotFound and BadRequest."""
    note_change(connection)
    before = show_token(connection, name=name)
    values = _check({**{field: before[field] for field in FIELDS}, **changes}, name)
    connection.execute(update(tokens).where(tokens.c.name == name).values(values))
    after = show_token(connection, name=name)
    add(connection, actor, "change", f"tokens.{name}", before, after)
    return after


def rotate_token(
    connection: Connection, *, name: str, actor: Actor, digest: str = "", prefix: str = ""
) -> dict[str, Json]:
    """Replaces the token of a key, and returns it with its new `token`; the old one is not accepted
    any more. `digest`: as for `create_token`. Raises NotFound."""
    note_change(connection)
    before = show_token(connection, name=name)
    token, identity = _identify(digest, prefix)
    connection.execute(update(tokens).where(tokens.c.name == name).values(identity))
    after = show_token(connection, name=name)
    add(connection, actor, "rotate", f"tokens.{name}", before, after)
    return {"token": token, **after} if token else after


def delete_token(connection: Connection, *, name: str, actor: Actor) -> None:
    """Withdraws a key for good. Raises NotFound."""
    note_change(connection)
    before = show_token(connection, name=name)
    connection.execute(delete(tokens).where(tokens.c.name == name))
    add(connection, actor, "delete", f"tokens.{name}", before=before)


def read_digests(connection: Connection) -> list[dict[str, Json]]:
    """Every key as workers need it, with its digest."""
    names = ("name", "digest", "prefix", *FIELDS)
    query = select(*(tokens.c[name] for name in names)).order_by(tokens.c.name)
    # The keys of a row are no plain strings, which frames need.
    return [
        dict(zip(names, row, strict=True)) | {"note": None} for row in connection.execute(query)
    ]


def _identify(digest: str, prefix: str) -> tuple[str, dict[str, str]]:
    """A new token with what is kept of it; "" with these, if they are of one
    that was made elsewhere."""
    token = "" if digest else new_token()
    kept = identify_token(token) if token else (digest, prefix)
    return token, dict(zip(("digest", "prefix"), kept, strict=True))


def _check(fields: Mapping[str, Json], name: str) -> dict[str, Any]:
    """The columns for some fields, with defaults for those that are absent."""
    try:
        check_key_name(name)
        values = write_key(read_key(fields))
    except ConfigError as error:
        raise BadRequest(
            "; ".join(error.complaints), param=find_field(error.complaints[0])
        ) from None
    return {**values, "note": values["note"] or ""}


def _describe(row: Mapping[str, Any]) -> dict[str, Json]:
    """A key without its digest, as answers and the audit have it."""
    last_used = row.get("last_used")
    return {
        "name": row["name"],
        "prefix": row["prefix"],
        **{field: row[field] for field in FIELDS},
        "note": row["note"] or None,
        "created_at": format_ms(row["created_at"]),
        "created_by": row["created_by"],
        "last_used": None if last_used is None else format_ms(last_used),
    }
