"""Who changed what, and when. No entry has a token or its digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from sqlalchemy import Connection, insert, select, update

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json
from ollama_proxy.records.tables import audit, meta
from ollama_proxy.records.times import format_ms, now_ms
from ollama_proxy.texts import Translatable

#: Most entries of one answer.
MAX_ROWS = 1000

#: What lists that come in pages say of a cursor that is none of theirs.
WRONG_CURSOR = Translatable("cursor must be that of an earlier page.")

#: `by`: the name of a token, or `cli:<login>`; `from`: its address.
Actor = TypedDict("Actor", {"by": str, "from": str})


def add(
    connection: Connection,
    actor: Actor,
    action: str,
    subject: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Adds an entry, in the transaction of the change. `subject`: what was changed, such as
    `tokens.web`; of `before` and `after` only what differs is kept."""
    if before is not None and after is not None:
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        before, after = ({name: each.get(name) for name in changed} for each in (before, after))
    values = {"actor": actor["by"], "address": actor["from"], "action": action, "subject": subject}
    connection.execute(insert(audit).values(at=now_ms(), before=before, after=after, **values))


def note_change(connection: Connection) -> None:
    """Tells every coordinator that keys or managed settings change in this transaction. First of
    all: changes of others wait for the end of the transaction."""
    connection.execute(update(meta).values(revision=meta.c.revision + 1))


def list_audit(
    connection: Connection, *, limit: int = 100, cursor: str | None = None
) -> dict[str, Json]:
    """Entries, the newest first, and where the next ones begin: `{rows,
    cursor}`. Raises BadRequest."""
    most = min(max(limit, 1), MAX_ROWS)
    query = select(audit).order_by(audit.c.id.desc()).limit(most)
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
            raise BadRequest(WRONG_CURSOR, param="cursor")
        query = query.where(audit.c.id < int(cursor))
    rows = [
        {
            "id": row.id,
            "at": format_ms(row.at),
            "by": row.actor,
            "from": row.address,
            "action": row.action,
            "subject": row.subject,
            "before": row.before,
            "after": row.after,
        }
        for row in connection.execute(query)
    ]
    return {"rows": rows, "cursor": str(rows[-1]["id"]) if len(rows) == most else None}
