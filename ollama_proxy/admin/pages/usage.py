"""Who used what, and what it cost: a chart, a table, and the same as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from flask import Response, request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.formats import money, number, seconds
from ollama_proxy.admin.pages.language import N_
from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.page import Page, render
from ollama_proxy.admin.pages.records import pick, read_records, suggest_names
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.admin.usage import SECTION as USAGE_API
from ollama_proxy.admin.usage import show_usage as report_usage
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json
from ollama_proxy.settings import find_timezone, midnight_s, next_period

PAGE = Page("usage")

#: What rows can be for, as the API names it.
SUBJECTS = {
    "day": N_("Day"),
    "month": N_("Month"),
    "token": N_("Key"),
    "user": N_("User"),
    "model": N_("Model"),
    "upstream": N_("Box"),
    "dialect": N_("API"),
}
PERIODS = ("day", "month")

RANGES = {
    "today": N_("Today"),
    "7d": N_("7 days"),
    "30d": N_("30 days"),
    "month": N_("This month"),
    "custom": N_("Custom"),
}
DEFAULT_RANGE = "30d"

#: What the chart can show.
MEASURES = {
    "requests": N_("Requests"),
    "errors": N_("Errors"),
    "tokens": N_("Tokens"),
    "gpu_seconds": N_("GPU time"),
    "cost": N_("Cost"),
}

FILTERS = ("token", "model", "user", "upstream")

#: Rows of the table; the CSV has all of them.
MOST_ROWS = 200
#: Names in the chart; the others are one.
MOST_SERIES = 5
#: Days that the chart shows one by one; a longer time is shown by month.
MOST_DAYS = 100


@dataclass(frozen=True, slots=True)
class Choice:
    """What a report is to show. `start` and `end`: first and last day, of `records.timezone`."""

    span: str
    start: str
    end: str
    by: tuple[str, ...]
    measure: str
    filters: Mapping[str, Json]

    @property
    def parameters(self) -> dict[str, Any]:
        """As the page takes them."""
        custom = {"from": self.start, "to": self.end} if self.span == "custom" else {}
        second = {"then": self.by[1]} if self.by[1:] else {}
        return {
            "range": self.span,
            **custom,
            "by": self.by[0],
            **second,
            "measure": self.measure,
            **self.filters,
        }

    def query(self, by: tuple[str, ...], **more: str) -> dict[str, Any]:
        """As the API takes them."""
        return {
            "by": ",".join(by),
            "start": self.start,
            "end": self.end,
            "format": "json",
            **self.filters,
            **more,
        }


def read_choice(values: Mapping[str, str]) -> Choice:
    """What the parameters ask for; what is absent or unknown is as usual."""
    gateway = current_gateway()
    zone = find_timezone(gateway.settings.records.timezone)
    span = values.get("range", DEFAULT_RANGE)
    span = span if span in RANGES else DEFAULT_RANGE
    start, end = days_of(span, gateway.clock.now(zone).date())
    if span == "custom":
        start, end = values.get("from") or start, values.get("to") or end
    first, second = (values.get(name) for name in ("by", "then"))
    first = first if first in SUBJECTS else "token"
    by = (first, second) if second in SUBJECTS and second != first else (first,)
    measure = values.get("measure", "")
    return Choice(
        span, start, end, by, measure if measure in MEASURES else "requests", pick(values, FILTERS)
    )


def days_of(span: str, today: date) -> tuple[str, str]:
    """First and last day of a range."""
    first = {"today": today, "7d": today - timedelta(days=6), "month": today.replace(day=1)}
    return first.get(span, today - timedelta(days=29)).isoformat(), today.isoformat()


@PAGE.get()
def show_usage() -> ResponseReturnValue:
    """The table, and where the chart will be."""
    choice = read_choice(request.args)
    order = f"-{choice.by[0] if choice.by[0] in PERIODS else 'requests'}"
    records = current_gateway().settings.records
    found = read_records(report_usage, choice.query(choice.by, sort=order))
    return render(
        "usage.html",
        found["status"],
        **found,
        choice=choice,
        subjects=SUBJECTS,
        ranges=RANGES,
        measures=MEASURES,
        names=suggest_names(),
        most_rows=MOST_ROWS,
        csv_endpoint=f"{USAGE_API.blueprint.name}.{report_usage.__name__}",
        currency=records.currency,
        timezone=records.timezone,
    )


@PAGE.get("/data")
def show_data() -> ResponseReturnValue:
    """What the chart shows, as JSON."""
    choice = read_choice(request.args)
    subject = next((name for name in choice.by if name not in PERIODS), "")
    unit, periods = list_periods(choice.start, choice.end)
    report: Any = report_usage(choice.query((subject, unit) if subject else (unit,)))
    amounts = dict[str, dict[str, float]]()
    for row in report["rows"]:
        amounts.setdefault(row.get(subject, ""), {})[row[unit]] = measure(row, choice.measure)
    series: list[dict[str, Any]] = [
        {
            "name": name_series(name, subject),
            "values": [round(found.get(each, 0), 9) for each in periods],
        }
        for name, found in rank_series(amounts)
    ]
    labels = [shorten(each, unit) for each in periods]
    totals = [sum(each["values"][number] for each in series) for number in range(len(labels))]
    document = {
        "labels": labels,
        "series": series,
        "unit": unit_of(choice.measure),
        "summary": summarize(choice, labels, totals),
    }
    return Response(orjson.dumps(document), content_type="application/json")


def list_periods(start: str, end: str) -> tuple[str, list[str]]:
    """The unit of the chart, and every hour, day or month from the first day to the last, as
    reports name them. Raises BadRequest."""
    try:
        first, last = date.fromisoformat(start), date.fromisoformat(end)
    except ValueError:
        raise BadRequest(_("A day must be one such as 2026-11-23."), param="from") from None
    days = (last - first).days + 1
    if days == 1:
        return "hour", list_hours(first)
    unit = "day" if days <= MOST_DAYS else "month"
    each = first if unit == "day" else first.replace(day=1)
    found = []
    while each <= last:
        found.append(each.isoformat()[: 10 if unit == "day" else 7])
        each = next_period(each, unit)
    return unit, found


def list_hours(day: date) -> list[str]:
    """The hours of a day, of which there are 23 or 25 when the clock is set."""
    zone = find_timezone(current_gateway().settings.records.timezone)
    begins, ends = (round(midnight_s(each, zone)) for each in (day, next_period(day, "day")))
    hours = (
        datetime.fromtimestamp(each, UTC).astimezone(zone) for each in range(begins, ends, 3600)
    )
    return [hour.isoformat(timespec="seconds").replace("+00:00", "Z") for hour in hours]


def shorten(period: str, unit: str) -> str:
    """A period as an axis has it: 08:00, 11-23, 2026-11."""
    return {"hour": period[11:16], "day": period[5:], "month": period}[unit]


def measure(row: Mapping[str, Any], name: str) -> float:
    """What the chart shows of a row."""
    return float(row["prompt_tokens"] + row["completion_tokens"] if name == "tokens" else row[name])


def rank_series(
    amounts: Mapping[str, Mapping[str, float]],
) -> list[tuple[str | None, Mapping[str, float]]]:
    """The largest ones first, by name; if there are many, the last one is all others
    together, without a name."""
    used = [each for each in amounts.items() if sum(each[1].values()) > 0]
    ranked = sorted(used, key=lambda each: sum(each[1].values()), reverse=True)
    kept, rest = ranked[:MOST_SERIES], [found for _name, found in ranked[MOST_SERIES:]]
    if not rest:
        return [*kept]
    others = Counter[str]()
    for found in rest:
        others.update(found)
    return [*kept, (None, others)]


def name_series(name: str | None, subject: str) -> str:
    """What the chart calls one of `rank_series`."""
    if name is None:
        return _("Others")
    return name or (_("(none)") if subject else _("All"))


def unit_of(name: str) -> str:
    """What stands behind a number of the chart."""
    return {"gpu_seconds": "s", "cost": current_gateway().settings.records.currency}.get(name, "")


def summarize(choice: Choice, labels: Sequence[str], totals: Sequence[float]) -> str:
    """What the chart shows, in words."""
    title = _(MEASURES[choice.measure])
    span = choice.start if choice.start == choice.end else f"{choice.start} – {choice.end}"  # noqa: RUF001
    most = max(totals, default=0)
    if not most:
        return _("%(what)s, %(span)s: none.", what=title, span=span)
    return _(
        "%(what)s, %(span)s: %(total)s in total, at most %(most)s (%(period)s).",
        what=title,
        span=span,
        total=write_amount(choice.measure, sum(totals)),
        most=write_amount(choice.measure, most),
        period=labels[totals.index(most)],
    )


def write_amount(name: str, amount: float) -> str:
    """An amount of the chart with its unit."""
    if name == "cost":
        return money(amount, unit_of(name))
    return seconds(amount) if name == "gpu_seconds" else number(amount)
