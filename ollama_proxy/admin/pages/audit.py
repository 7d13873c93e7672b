"""Who changed what, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from flask import request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.audit import list_changes
from ollama_proxy.admin.pages.language import N_
from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.page import Page, render
from ollama_proxy.admin.pages.records import pick, read_records
from ollama_proxy.hub import Json

PAGE = Page("audit")

#: What can be done to something: its title, and the kind of its badge.
ACTIONS = {
    "create": (N_("created"), "good"),
    "change": (N_("changed"), "plain"),
    "rotate": (N_("rotated"), "plain"),
    "delete": (N_("deleted"), "warn"),
    "refuse": (N_("refused"), "bad"),
    "pull": (N_("pulled"), "good"),
    "copy": (N_("copied"), "good"),
    "load": (N_("loaded"), "plain"),
    "unload": (N_("unloaded"), "plain"),
    "cancel": (N_("cancelled"), "warn"),
}

#: Of one page.
ROWS = 100


@PAGE.get()
def show_audit() -> ResponseReturnValue:
    """A page of changes, newest first."""
    query = pick(request.args, ("cursor",))
    found = read_records(list_changes, {**query, "limit": ROWS})
    answer = found["answer"] or {"rows": [], "cursor": None}
    rows: list[dict[str, Any]] = []
    for row in answer["rows"]:
        title, kind = ACTIONS.get(row["action"], ("", "plain"))
        badge = (_(title) if title else row["action"], kind)  # as macros.html takes it
        rows.append(row | {"badge": badge, "changes": list_values(row["before"], row["after"])})
    # The last page may be full.
    cursor = answer["cursor"] if rows else None
    return render(
        "audit.html", found["status"], **found, rows=rows, cursor=cursor, is_first=not query
    )


def list_values(
    before: Mapping[str, Json] | None, after: Mapping[str, Json] | None
) -> list[dict[str, str | None]]:
    """Each field whose value is not the same before and after, with both as
    texts; None: it has none."""
    old, new = dict(flatten(before or {})), dict(flatten(after or {}))
    return [
        {"name": name, "before": old.get(name), "after": new.get(name)}
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def flatten(values: Mapping[str, Json], place: str = "") -> Iterator[tuple[str, str]]:
    """Every field that has a value, by names such as `limits.requests_per_minute`,
    and the value as a text."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{place}{name}.")
        elif value not in (None, ""):
            yield f"{place}{name}", write(value)


def write(value: Json) -> str:
    """A value as people write it in the configuration."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(map(str, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()
