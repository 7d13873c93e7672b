"""Single requests, newest first: who asked for what, and where the time went. Prompts and
answers are not recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.formats import milliseconds
from ollama_proxy.admin.pages.language import N_
from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.page import Page, render
from ollama_proxy.admin.pages.records import pick, read_records, suggest_names
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.admin.usage import list_requests
from ollama_proxy.hub import Json

PAGE = Page("requests")

#: How a request can end: its title, and the kind of its badge.
STATES = {
    "ok": (N_("ok"), "good"),
    "client_gone": (N_("client left"), "plain"),
    "refused": (N_("refused"), "warn"),
    "timeout": (N_("timeout"), "bad"),
    "upstream_error": (N_("upstream error"), "bad"),
    "aborted": (N_("aborted"), "bad"),
    "lost": (N_("lost"), "bad"),
}

FILTERS = ("state", "token", "model", "since")
#: Parts of a time that took less, in milliseconds, are not shown.
SHORTEST_MS = 0.5
#: Of one page.
ROWS = 30


@PAGE.get()
def show_requests() -> ResponseReturnValue:
    """A page of requests, and fields to search them by."""
    found, timezone = read_page(), current_gateway().settings.records.timezone
    return render(
        "requests.html", found["status"], **found, names=suggest_names(), timezone=timezone
    )


@PAGE.get("/rows")
def show_rows() -> ResponseReturnValue:
    """The same requests alone, for a page that follows them."""
    found = read_page()
    return render("_requests.html", found["status"], **found)


def read_page() -> dict[str, Any]:
    """What the templates get."""
    query = pick(request.args, (*FILTERS, "cursor"))
    found = read_records(list_requests, {**query, "limit": ROWS})
    rows = [describe_request(row) for row in found["answer"]["rows"]] if found["answer"] else []
    cursor = found["answer"]["cursor"] if found["answer"] else None
    return {
        **found,
        "rows": rows,
        "cursor": cursor,
        "is_first": "cursor" not in query,
        "filters": {name: value for name, value in query.items() if name != "cursor"},
        "states": STATES,
        "currency": current_gateway().settings.records.currency,
    }


def describe_request(row: dict[str, Any]) -> dict[str, Any]:
    """A request with the parts of its time, and each of its attempts with
    those of the same time."""
    total = row["total_ms"] or 0.0
    attempts = [
        each | {"parts": split_attempt(each, total), "result": show_state(each["state"])}
        for each in row["attempts"]
    ]
    # The id may be one that the client chose, twice.
    more = {
        "key": f"{row['started_at']} {row['id']}",
        "parts": split_request(row),
        "result": show_state(row["state"]),
    }
    return row | more | {"attempts": attempts}


def show_state(state: str) -> tuple[str, str]:
    """How something ended, as `badge` in macros.html takes it. Templates must not translate what
    may be any text: it would not be escaped."""
    title, kind = STATES.get(state, ("", "plain"))
    return (_(title), kind) if title else (state, kind)


def split_request(row: Mapping[str, Any]) -> list[dict[str, Json]]:
    """Where the time of a request went, as `waterfall` in macros.html takes it."""
    total, queued = row["total_ms"] or 0.0, row["queue_ms"] or 0.0
    began, load = find_load(row["attempts"])
    loaded = max(queued, began) + load
    first = row["first_byte_ms"]
    # While a request waits, its stream may have begun with comments.
    answer = loaded if first is None else max(first, loaded)
    parts = [
        period(_("Queue"), "queue", 0.0, queued),
        period(_("Load"), "load", loaded - load, loaded),
    ]
    if any(kind_of(each["state"]) == "failed" for each in row["attempts"][:-1]):
        parts.insert(1, period(_("Earlier attempts"), "failed", queued, began))
    if first is not None:
        parts.append(
            period(_("First byte"), "prompt", loaded if load else max(queued, began), answer)
        )
    kind = kind_of(row["state"])
    parts.append(
        period(_("Answer") if kind == "answer" else _("Until the failure"), kind, answer, total)
    )
    return list(cut(parts, total))


def find_load(attempts: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """When the last attempt began, and how long it loaded its model."""
    began, load = 0.0, 0.0
    for each in attempts:
        began, load = each["started_ms"] or 0.0, each["load_ms"] or 0.0
    return began, load


def split_attempt(attempt: Mapping[str, Any], total: float) -> list[dict[str, Json]]:
    """The same for one attempt, within the time of its request."""
    began, load = attempt["started_ms"] or 0.0, attempt["load_ms"] or 0.0
    ends = began + (attempt["total_ms"] or 0.0)
    work = period(attempt["upstream"], kind_of(attempt["state"]), began + load, ends)
    return list(cut([period(_("Load"), "load", began, began + load), work], total))


def kind_of(state: str) -> str:
    """How a waterfall shows the time in which an answer came, or should have come."""
    return "failed" if state in STATES and STATES[state][1] == "bad" else "answer"


def period(title: str, kind: str, start: float, end: float) -> dict[str, Any]:
    """A part of a time, in milliseconds."""
    return {"title": title, "kind": kind, "start": start, "value": end - start}


def cut(parts: Iterable[dict[str, Any]], total: float) -> Iterable[dict[str, Json]]:
    """Those parts that last, within the total: what upstreams measure can be more
    than what passed here."""
    for each in parts:
        value = min(each["start"] + each["value"], total) - each["start"]
        if value >= SHORTEST_MS:
            yield each | {"value": value, "text": milliseconds(value)}
