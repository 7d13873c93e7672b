"""What the records say of usage: sums by token, model or time, single requests, what quotas have
used up, and when each token was used last.

Sums read only `usage_hourly`. Its hours begin where those of `records.timezone` do, so days and
months of that zone consist of whole rows, also in zones with half hours.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Connection, Select, Table, Text, bindparam, func, select, text

from ollama_proxy.coordination import Spent
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json
from ollama_proxy.records.audit import WRONG_CURSOR
from ollama_proxy.records.tables import token_uses, usage_hourly
from ollama_proxy.records.tables import usage as usage_table
from ollama_proxy.records.times import format_ms
from ollama_proxy.settings import find_timezone, midnight_s, next_period
from ollama_proxy.texts import Translatable

#: What sums can be grouped by.
SUBJECTS = ("token", "user", "model", "upstream", "dialect")
PERIODS = ("hour", "day", "month")
#: Those of the periods that consist of hours, the shorter one first.
DATES = ("day", "month")
#: What is summed.
COUNTS = ("requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens")
AMOUNTS = ("gpu_seconds", "cost")
#: Of amounts: what is behind them comes from adding binary fractions.
DECIMALS = 9

#: Bounds of one report.
MAX_DAYS, MAX_ROWS = 3700, 100_000
#: Memory that PostgreSQL may use for it; with its default of 4 MB, it sorts the
#: rows of a month on disk.
WORK_MB = 64
#: The year 3000: no time of a report is later.
MAX_MS = 32_503_680_000_000
#: Rows of one page of requests.
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_FILTER_CHARS = 512

_DAY_MS = 86_400_000

#: Fields of a request that are named as in the table.
_REQUEST_FIELDS = (
    "token user dialect route model target upstream stream status state error "
    "prompt_tokens cached_tokens completion_tokens estimated queue_ms load_ms "
    "first_byte_ms total_ms gpu_ms cost bytes"
).split()

#: Those of an attempt, for rows of versions that did not record all of them.
_UNKNOWN_ATTEMPT: Mapping[str, Json] = {
    **dict.fromkeys(("upstream", "state", "error"), ""),
    **dict.fromkeys(("started_ms", "total_ms", "gpu_ms", "load_ms")),
}


@dataclass(frozen=True, slots=True)
class Span:
    """The time from `start_ms` to before `end_ms`, since 1970, and the zone in
    which its days begin."""

    start_ms: int
    end_ms: int
    zone: tzinfo


def usage(
    connection: Connection,
    *,
    by: str | Sequence[str] = "token",
    start: str | None = None,
    end: str | None = None,
    token: str | None = None,
    user: str | None = None,
    model: str | None = None,
    upstream: str | None = None,
    timezone: str = "UTC",
    sort: str | None = None,
) -> Json:
    """Sums of usage for each combination of the fields in `by`: `{"rows": [...], "total": {...}}`.

    `start` and `end` are as for `parse_span`. Rows are ordered by their fields, or by `sort`: one
    of the fields or sums, with "-" before it from the largest down. Raises BadRequest.
    """
    fields = _parse_fields(by)
    span = parse_span(start, end, timezone)
    filters = {"token": token, "user": user, "model": model, "upstream": upstream}
    rows = list[dict[str, Any]]()
    for each in sorted(
        _add_up(connection, fields, span, filters), key=itemgetter(slice(len(fields)))
    ):
        row = dict(zip(fields, each, strict=False))
        if "hour" in row:
            # Its beginning, with the offset from UTC: the hour before it may have the same name.
            hour = datetime.fromtimestamp(row["hour"] / 1000, span.zone)
            row["hour"] = hour.isoformat(timespec="seconds").replace("+00:00", "Z")
        rows.append(
            row | _convert(dict(zip((*COUNTS, *AMOUNTS), each[len(fields) :], strict=True)))
        )
    if sort:
        name = sort.removeprefix("-")
        if name not in (*fields, *COUNTS, *AMOUNTS):
            expected = "sort must be a field of the rows, with - before it for a descending order."
            raise BadRequest(expected, param="sort")
        rows.sort(key=itemgetter(name), reverse=sort.startswith("-"))
    total = {name: sum([row[name] for row in rows]) for name in COUNTS}
    return {
        "rows": rows,
        "total": _convert(total | {name: math.fsum(row[name] for row in rows) for name in AMOUNTS}),
    }


def requests(
    connection: Connection,
    *,
    state: str | None = None,
    token: str | None = None,
    model: str | None = None,
    since: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    timezone: str = "UTC",
) -> Json:
    """A page of requests, newest first: `{"rows": [...], "cursor": str | None}`;
    the cursor continues it.

    Raises BadRequest.
    """
    limit = DEFAULT_LIMIT if limit is None else limit
    if not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise BadRequest(f"limit must be a whole number from 1 to {MAX_LIMIT}.", param="limit")
    columns = usage_table.c
    query = select(usage_table).order_by(columns.row_id.desc()).limit(limit + 1)
    query = _filter(query, usage_table, state=state, token=token, model=model)
    if since:
        # Row ids begin with the time, in twelve hexadecimal digits.
        query = query.where(
            columns.row_id >= f"{_parse_time(since, find_timezone(timezone), 'since'):012x}"
        )
    if cursor:
        if not re.fullmatch(r"[0-9A-Za-z]{1,64}", cursor, re.ASCII):
            raise BadRequest(WRONG_CURSOR, param="cursor")
        query = query.where(columns.row_id < cursor)
    found = connection.execute(query).all()
    rows = [
        {
            "id": each.id,
            "started_at": format_ms(min(each.started_at, MAX_MS)),
            "attempts": [
                {**_UNKNOWN_ATTEMPT, **attempt} for attempt in orjson.loads(each.attempts)
            ],
        }
        | {name: getattr(each, name) for name in _REQUEST_FIELDS}
        for each in found[:limit]
    ]
    return {"rows": rows, "cursor": found[limit - 1].row_id if len(found) > limit else None}


def sums_since(connection: Connection, start_ms: int) -> dict[str, Spent]:
    """What each token, and each user behind one, has used since the beginning of an hour; the keys
    are those of limits, "token:NAME" and "user:TOKEN/USER"."""
    columns = usage_hourly.c
    tokens = columns.prompt_tokens + columns.completion_tokens
    sums = [func.sum(amount) for amount in (tokens, columns.gpu_seconds, columns.cost)]
    query = select(columns.token, columns.user, *sums).where(columns.hour >= start_ms)
    found = dict[str, Spent]()
    for token, user, count, gpu_s, cost in connection.execute(
        query.group_by(columns.token, columns.user)
    ):
        for key in (f"token:{token}", f"user:{token}/{user}" if user else ""):
            if key:
                before = found.get(key, Spent())
                found[key] = Spent(
                    before.tokens + int(count), before.gpu_s + gpu_s, before.cost + cost
                )
    return found


def last_used(connection: Connection) -> dict[str, str]:
    """When each token was used last, in ISO 8601."""
    uses = connection.execute(select(token_uses.c.token, token_uses.c.last_used))
    return {token: format_ms(used_ms) for token, used_ms in uses}


def parse_span(start: str | None, end: str | None, timezone: str) -> Span:
    """The time of a report: `start` and `end` are days, months, or times in ISO 8601, and a day or
    month is included as a whole. Absent: from the beginning of the month in which it ends; until
    now. Raises BadRequest."""
    zone = find_timezone(timezone)
    end_ms = _parse_time(end, zone, "to", is_end=True) if end else int(time.time() * 1000) + 1
    if start:
        start_ms = _parse_time(start, zone, "from")
    else:
        last = datetime.fromtimestamp((end_ms - 1) / 1000, zone).date()
        start_ms = _midnight_ms(last.replace(day=1), zone)
    if end_ms <= start_ms:
        raise BadRequest(Translatable("The report must end after it begins."), param="to")
    if end_ms - start_ms > MAX_DAYS * _DAY_MS:
        raise BadRequest(
            Translatable("A report can have at most %(number)s days.", number=f"{MAX_DAYS:,}"),
            param="from",
        )
    return Span(start_ms, end_ms, zone)


def _parse_fields(by: str | Sequence[str]) -> list[str]:
    fields = by.split(",") if isinstance(by, str) else list(by)
    if not fields or not set(fields) <= {*SUBJECTS, *PERIODS} or len(set(fields)) < len(fields):
        raise BadRequest(
            f"by must name one or more of {', '.join((*SUBJECTS, *PERIODS))}, each once.",
            param="by",
        )
    return fields


def _parse_time(text: str, zone: tzinfo, param: str, *, is_end: bool = False) -> int:
    """Milliseconds since 1970 of a day, month or time; with `is_end`, of the end
    of that day or month."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?", text, re.ASCII):
            unit = "day" if len(text) > len("2026-11") else "month"
            first = date.fromisoformat(text if unit == "day" else f"{text}-01")
            ms = _midnight_ms(next_period(first, unit) if is_end else first, zone)
        else:
            given = datetime.fromisoformat(text)
            ms = round((given if given.tzinfo else given.replace(tzinfo=zone)).timestamp() * 1000)
        if 0 <= ms <= MAX_MS:
            return ms
    except (ValueError, OverflowError, TypeError):
        pass
    expected = Translatable(
        "%(name)s must be a day such as 2026-11-23, a month such as 2026-11, or a time such as "
        "2026-11-23T08:00:00Z.",
        name=param,
    )
    raise BadRequest(expected, param=param)


def _filter(query: Select[Any], table: Table, **values: str | None) -> Select[Any]:
    """The rows of the table with exactly these values; those without one are no condition."""
    for name, value in values.items():
        if value:
            if (
                not isinstance(value, str)
                or len(value) > MAX_FILTER_CHARS
                or not value.isprintable()
            ):
                limit = Translatable(
                    "%(name)s must be at most %(number)s printable characters.",
                    name=name,
                    number=MAX_FILTER_CHARS,
                )
                raise BadRequest(limit, param=name)
            query = query.where(table.c[name] == value)
    return query


def _convert(sums: Mapping[str, Any]) -> dict[str, Json]:
    """Sums as numbers of JSON: PostgreSQL adds whole numbers to decimal ones."""
    counts = {name: int(sums[name]) for name in COUNTS}
    return counts | {name: round(float(sums[name]), DECIMALS) for name in AMOUNTS}


def _add_up(
    connection: Connection, fields: Sequence[str], span: Span, filters: Mapping[str, str | None]
) -> list[Sequence[Any]]:
    """The values of the fields, and the sums, of each combination that occurs;
    hours in milliseconds."""
    columns = {name: usage_hourly.c[name] for name in fields if name not in DATES}
    keys = [
        columns[name] if name in columns else bindparam(name, type_=Text).label(name)
        for name in fields
    ]
    sums = [func.sum(usage_hourly.c[name]) for name in (*COUNTS, *AMOUNTS)]
    hour = usage_hourly.c.hour
    query = select(*keys, *sums).where(hour >= bindparam("start_ms"), hour < bindparam("end_ms"))
    query = _filter(query, usage_hourly, **filters).group_by(*columns.values()).limit(MAX_ROWS + 1)
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL work_mem = '{WORK_MB}MB'"))
    found: list[Sequence[Any]] = []
    for period in _split(span, fields):
        # The sums of nothing are no numbers.
        found += [row for row in connection.execute(query, period) if row[-1] is not None]
        if len(found) > MAX_ROWS:
            raise BadRequest(
                Translatable(
                    "The report has more than %(number)s rows: choose a shorter "
                    "time or fewer fields.",
                    number=f"{MAX_ROWS:,}",
                )
            )
    return found


def _split(span: Span, fields: Sequence[str]) -> Iterator[dict[str, int | str]]:
    """The days or months of a report, which are asked for one by one: SQLite sorts the rows
    of a day in a fraction of the time that it takes to sort those of a month. One part if
    the report has neither."""
    unit = next((name for name in DATES if name in fields), "")
    if not unit:
        yield {"start_ms": span.start_ms, "end_ms": span.end_ms}
        return
    first = datetime.fromtimestamp(span.start_ms / 1000, span.zone).date()
    after, start_ms = first if unit == "day" else first.replace(day=1), span.start_ms
    while start_ms < span.end_ms:
        day, after = after, next_period(after, unit)
        end_ms = min(_midnight_ms(after, span.zone), span.end_ms)
        yield {
            "start_ms": start_ms,
            "end_ms": end_ms,
            "day": day.isoformat(),
            "month": day.isoformat()[:7],
        }
        start_ms = end_ms


def _midnight_ms(day: date, zone: tzinfo) -> int:
    return round(midnight_s(day, zone) * 1000)
