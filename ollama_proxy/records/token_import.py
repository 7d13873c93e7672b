"""Makes keys of the tokens of other gateways, so that nobody needs a new one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from ollama_proxy.errors import BadRequest, Conflict
from ollama_proxy.records.audit import Actor
from ollama_proxy.records.foreign_tokens import ForeignToken
from ollama_proxy.records.tables import tokens
from ollama_proxy.records.tokens import create_token

MAX_NAME_CHARS = 64
#: Of a name that can't be that of a key, in its note.
MAX_NOTE_CHARS = 200


@dataclass(slots=True)
class ImportResult:
    """What became of a token of a list. `name`: of its key, or of the one that
    has this token already."""

    source: ForeignToken
    name: str = ""
    #: Why there is no new key; "" if there is one.
    skipped: str = ""
    is_disabled: bool = False


def import_tokens(
    connection: Connection,
    found: Iterable[ForeignToken],
    *,
    in_file: Mapping[str, str],
    actor: Actor,
    enable_restricted: bool = False,
) -> Iterator[ImportResult]:
    """Makes a key of each token that is not there yet, in the transaction of the connection.

    `in_file`: the names of the tokens of the configuration, by digest. A token with a restriction
    that the gateway does not have becomes a disabled key; with `enable_restricted`, an enabled one.
    """
    known = {
        digest: name for name, digest in connection.execute(select(tokens.c.name, tokens.c.digest))
    }
    known.update(in_file)
    for each in found:
        result = ImportResult(each, skipped=each.refusal)
        if not each.refusal and each.digest in known:
            result.name, result.skipped = (
                known[each.digest],
                f"it is there already, as {known[each.digest]}",
            )
        elif not each.refusal:
            result.name = _choose_name(each.name, set(known.values()))
            result.is_disabled = bool(
                each.fields.get("disabled") or (each.restrictions and not enable_restricted)
            )
            shown = "".join(filter(str.isprintable, each.name))[:MAX_NOTE_CHARS]
            note = f"imported as {shown}" if shown and shown != result.name else "imported"
            fields = {**each.fields, "disabled": result.is_disabled, "note": note}
            try:
                create_token(
                    connection,
                    name=result.name,
                    fields=fields,
                    actor=actor,
                    digest=each.digest,
                    prefix=each.prefix,
                )
                known[each.digest] = result.name
            except (BadRequest, Conflict) as error:
                result.skipped = str(error)
        yield result


def _choose_name(wanted: str, taken: set[str]) -> str:
    """A name of a key that resembles the wanted one."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-")[: MAX_NAME_CHARS - 5] or "imported"
    candidates = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in candidates if each not in taken)
