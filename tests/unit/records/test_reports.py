"""Sums of usage by anything, on days of any length, and pages of requests; on
SQLite and PostgreSQL."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import combinations, product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, insert

from ollama_proxy.coordination import Spent
from ollama_proxy.errors import BadRequest
from ollama_proxy.records import reports
from ollama_proxy.records.rows import HourlySums
from ollama_proxy.records.tables import token_uses, usage, usage_hourly
from tests.rig.tables import check_rows

HOUR_MS = 3_600_000
SUMS = {**dict.fromkeys(reports.COUNTS, 0), **dict.fromkeys(reports.AMOUNTS, 0.0)}

#: Zones with days of 23 and 25 hours in their months, with quarters of hours, and with a
#: day that begins at 1:00.
MONTHS = [
    ("UTC", "2026-02", 28 * 24, {}),
    ("Europe/Berlin", "2026-10", 31 * 24 + 1, {"2026-10-25": 25}),
    ("Europe/Berlin", "2026-03", 31 * 24 - 1, {"2026-03-29": 23}),
    ("America/Havana", "2026-03", 31 * 24 - 1, {"2026-03-08": 23}),
    ("Asia/Kolkata", "2026-11", 30 * 24, {}),
    ("Asia/Kathmandu", "2026-11", 30 * 24, {}),
    ("America/St_Johns", "2026-11", 30 * 24 + 1, {"2026-11-01": 25}),
]


def ms(*parts: int, zone: str = "UTC") -> int:
    return round(datetime(*parts, tzinfo=ZoneInfo(zone)).timestamp() * 1000)  # type: ignore[arg-type]


def hour_row(hour: int, **values: Any) -> dict[str, Any]:
    """A row of sums: one request, unless `values` has something else."""
    names = {
        "token": "web",
        "user": "",
        "model": "qwen3:8b",
        "upstream": "box1",
        "dialect": "openai",
    }
    return {**names, **SUMS, "hour": hour, "requests": 1, **values}


def add_hours(connection: Connection, *rows: dict[str, Any]) -> None:
    connection.execute(insert(usage_hourly), list(rows))


def request_row(number: int, **values: Any) -> dict[str, Any]:
    started_ms = ms(2026, 11, 23) + number
    texts = (
        "id token user trusted_user dialect route method model target upstream state error".split()
    )
    return {
        **dict.fromkeys(texts, ""),
        **{
            "row_id": f"{started_ms:012x}0a1b2c3d{number:06x}",
            "id": f"id-{number}",
            "started_at": started_ms,
        },
        **{
            "is_known_model": True,
            "attempts": "[]",
            "stream": False,
            "status": 200,
            "estimated": False,
            "bytes": 0,
        },
        **values,
    }


@pytest.mark.parametrize(("zone", "month", "hours", "odd_days"), MONTHS)
def test_days_and_months_are_those_of_the_zone(
    connection: Connection, zone: str, month: str, hours: int, odd_days: dict[str, int]
) -> None:
    year, number = map(int, month.split("-"))
    first = ms(year, number, 1, zone=zone)
    # The hours before and after the month do not belong to it.
    add_hours(connection, *(hour_row(first + each * HOUR_MS) for each in range(-1, hours + 1)))
    days = reports.usage(connection, by="day", start=month, end=month, timezone=zone)
    assert {
        row["day"]: row["requests"] for row in days["rows"] if row["requests"] != 24
    } == odd_days
    assert [row["day"] for row in days["rows"]] == [
        f"{month}-{day:02}" for day in range(1, len(days["rows"]) + 1)
    ]
    [whole] = reports.usage(connection, by="month", start=month, end=month, timezone=zone)["rows"]
    assert (whole["month"], whole["requests"], days["total"]["requests"]) == (month, hours, hours)
    around = reports.usage(
        connection, by="month", start=f"{year}-01", end=f"{year}-12", timezone=zone
    )["rows"]
    assert [row["requests"] for row in around] == [1, hours, 1]


def test_hours_are_told_apart_when_the_clock_is_set_back(connection: Connection) -> None:
    add_hours(connection, *(hour_row(ms(2026, 10, 25) + each * HOUR_MS) for each in range(3)))
    report = reports.usage(
        connection, by="hour", start="2026-10-25", end="2026-10-25", timezone="Europe/Berlin"
    )
    assert [row["hour"][11:] for row in report["rows"]] == [
        "02:00:00+02:00",
        "02:00:00+01:00",
        "03:00:00+01:00",
    ]
    report = reports.usage(
        connection, by="hour", start="2026-10-25T01:00:00Z", end="2026-10-25T02:00:00Z"
    )
    assert [row["hour"] for row in report["rows"]] == ["2026-10-25T01:00:00Z"]


def test_sums_by_anything_equal_the_total(connection: Connection) -> None:
    chance, first = random.Random(17), ms(2026, 3, 1, zone="Europe/Berlin")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _ in range(100):
        keys = {name: f"{name}-{chance.randrange(3)}" for name in reports.SUBJECTS}
        row = hour_row(first + chance.randrange(60 * 24) * HOUR_MS, **keys)
        row |= {name: chance.randrange(10**9) for name in reports.COUNTS}
        row |= {name: chance.random() * 1000 for name in reports.AMOUNTS}
        rows[tuple(row[name] for name in ("hour", *reports.SUBJECTS))] = row
    add_hours(connection, *rows.values())
    sums = {
        name: sum(row[name] for row in rows.values())
        for name in (*reports.COUNTS, *reports.AMOUNTS)
    }
    fields = (*reports.SUBJECTS, *reports.PERIODS)
    for by in (*((each,) for each in fields), *combinations(fields, 2), fields):
        report = reports.usage(
            connection, by=by, start="2026-03", end="2026-04", timezone="Europe/Berlin"
        )
        assert report["total"] == pytest.approx(sums), by
        assert len({tuple(row[name] for name in by) for row in report["rows"]}) == len(
            report["rows"]
        ), by
        for name in sums:
            assert sum(row[name] for row in report["rows"]) == pytest.approx(
                report["total"][name]
            ), by


def test_a_filter_is_literal(connection: Connection) -> None:
    hour = ms(2026, 11, 1)

    def check(field: str, name: str) -> None:
        with connection.begin_nested() as change:
            names = (name, "100 times", "axb", "other")
            add_hours(connection, *(hour_row(hour, **{field: each}, requests=7) for each in names))
            report = reports.usage(
                connection, by=field, start="2026-11", end="2026-11", **{field: name}
            )
            change.rollback()
        assert [(row[field], row["requests"]) for row in report["rows"]] == [(name, 7)]

    names = ("100%", "a_b", "o'neill", '"quoted"', "back\\slash", "张三")
    check_rows(product(("token", "user", "model", "upstream"), names), check)


def test_a_wrong_argument_is_named(connection: Connection) -> None:
    def check(param: str, arguments: dict[str, str]) -> None:
        with pytest.raises(BadRequest) as caught:
            reports.usage(connection, **arguments)
        assert caught.value.param == param

    rows = [
        ("by", {"by": "color"}),
        ("by", {"by": ""}),
        ("by", {"by": "token,token"}),
        ("by", {"by": "requests"}),
        ("by", {"by": "token; DROP TABLE usage"}),
        ("from", {"start": "-1"}),
        ("from", {"start": "2026-13"}),
        ("from", {"start": "2026-11-31"}),
        ("from", {"start": "1000000000"}),
        ("from", {"start": "0001-01-01"}),
        ("from", {"start": "1971-01-01"}),
        ("from", {"start": "1969-12-31T00:00:00+14:00"}),
        ("to", {"end": "9999-12-31"}),
        ("to", {"end": "9999-12"}),
        ("to", {"start": "2026-11-02", "end": "2026-11-01"}),
        ("to", {"start": "2999-11-02"}),
        ("token", {"token": "a\0b"}),
        ("token", {"token": "\udc80"}),
        ("user", {"user": "x" * 513}),
        ("sort", {"sort": "color"}),
        ("sort", {"sort": "model"}),
        ("sort", {"sort": "--cost"}),
    ]
    check_rows(rows, check)


def test_a_report_has_a_bound(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    add_hours(
        connection, *(hour_row(ms(2026, 11, 1), token=f"token-{number}") for number in range(4))
    )
    monkeypatch.setattr(reports, "MAX_ROWS", 3)
    with pytest.raises(BadRequest, match="more than 3 rows"):
        reports.usage(connection, start="2026-11", end="2026-11")


def test_without_a_time_it_is_this_month_until_now(connection: Connection) -> None:
    now = datetime.now(ZoneInfo("Asia/Tokyo")).replace(minute=0, second=0, microsecond=0)
    first = now.replace(day=1, hour=0)
    times = (first - timedelta(hours=1), first, now)
    rows = {round(each.timestamp() * 1000) for each in times}
    add_hours(connection, *(hour_row(each) for each in rows))
    assert reports.usage(connection, timezone="Asia/Tokyo")["total"]["requests"] == len(rows) - 1


def test_rows_can_be_sorted_by_a_sum(connection: Connection) -> None:
    amounts = {"a": 2.5, "b": 0.5, "c": 9.0}
    add_hours(
        connection,
        *(hour_row(ms(2026, 11, 1), token=name, cost=cost) for name, cost in amounts.items()),
    )
    for sort, expected in ((None, "abc"), ("cost", "bac"), ("-cost", "cab"), ("-token", "cba")):
        report = reports.usage(connection, start="2026-11", end="2026-11", sort=sort)
        assert "".join(row["token"] for row in report["rows"]) == expected


def test_pages_of_requests_have_each_row_once(connection: Connection) -> None:
    connection.execute(insert(usage), [request_row(number) for number in range(25)])
    first = reports.requests(connection, limit=10)
    # Newer rows do not shift the pages that follow.
    connection.execute(insert(usage), [request_row(number) for number in range(25, 30)])
    second = reports.requests(connection, limit=10, cursor=first["cursor"])
    third = reports.requests(connection, limit=10, cursor=second["cursor"])
    ids = [row["id"] for page in (first, second, third) for row in page["rows"]]
    assert ids == [f"id-{number}" for number in range(24, -1, -1)]
    assert third["cursor"] is None


def test_requests_can_be_filtered(connection: Connection) -> None:
    rows = [
        request_row(number, token="ab%"[number % 3], state=("ok", "lost")[number % 2])
        for number in range(12)
    ]
    connection.execute(insert(usage), rows)
    assert [row["id"] for row in reports.requests(connection, token="%", state="lost")["rows"]] == [
        "id-11",
        "id-5",
    ]
    since = reports.requests(connection, since="2026-11-23T00:00:00.009Z")["rows"]
    assert [row["id"] for row in since] == ["id-11", "id-10", "id-9"]


def test_a_request_has_the_fields_of_the_contract(connection: Connection) -> None:
    attempts = [
        {"upstream": "box1", "state": "ok", "error": "", "started_ms": 0.1, "total_ms": 12.0}
    ]
    values = {
        "attempts": '[{"upstream":"box1","state":"ok","error":"","started_ms":0.1,"total_ms":12.0}]'
    }
    values |= {
        "prompt_tokens": 3,
        "cost": 0.25,
        "gpu_ms": 10.5,
        "stream": True,
        "user": "ann",
        "trusted_user": "",
    }
    connection.execute(insert(usage), [request_row(7, **values)])
    [row] = reports.requests(connection)["rows"]
    assert set(row) == set(
        (
            "id started_at token user dialect route model target upstream attempts stream status "
            "state error prompt_tokens cached_tokens completion_tokens estimated queue_ms load_ms "
            "first_byte_ms total_ms gpu_ms cost bytes"
        ).split()
    )
    unknown = {"gpu_ms": None, "load_ms": None}  # of a version that did not record them
    assert (row["id"], row["started_at"]) == ("id-7", "2026-11-23T00:00:00.007Z")
    assert row["attempts"] == [each | unknown for each in attempts]
    connection.execute(usage.update().values(started_at=1 << 53))
    assert reports.requests(connection)["rows"][0]["started_at"] == "3000-01-01T00:00:00.000Z"
    assert (row["prompt_tokens"], row["cached_tokens"], row["cost"], row["stream"]) == (
        3,
        None,
        0.25,
        True,
    )


def test_a_wrong_argument_of_requests_is_named(connection: Connection) -> None:
    def check(param: str, arguments: dict[str, Any]) -> None:
        with pytest.raises(BadRequest) as caught:
            reports.requests(connection, **arguments)
        assert caught.value.param == param

    rows = [
        ("limit", {"limit": 0}),
        ("limit", {"limit": 1001}),
        ("limit", {"limit": "x"}),
        ("cursor", {"cursor": "' OR 1=1"}),
        ("since", {"since": "-1"}),
        ("since", {"since": "yesterday"}),
        ("state", {"state": "a\0"}),
    ]
    check_rows(rows, check)


def test_quotas_know_what_was_used(connection: Connection) -> None:
    hour, used = (
        ms(2026, 11, 1),
        {"prompt_tokens": 100, "completion_tokens": 20, "gpu_seconds": 1.5, "cost": 0.25},
    )
    add_hours(
        connection,
        hour_row(hour - HOUR_MS, **used),
        hour_row(hour, user="ann", **used),
        hour_row(hour, user="bob", **used),
        hour_row(hour + HOUR_MS, user="bob", model="other", **used),
    )
    assert reports.sums_since(connection, hour) == {
        "token:web": Spent(360, 4.5, 0.75),
        "user:web/ann": Spent(120, 1.5, 0.25),
        "user:web/bob": Spent(240, 3.0, 0.5),
    }
    assert reports.sums_since(connection, hour + 2 * HOUR_MS) == {}


def test_last_used(connection: Connection) -> None:
    connection.execute(insert(token_uses), [{"token": "web", "last_used": ms(2026, 11, 23, 8)}])
    assert reports.last_used(connection) == {"web": "2026-11-23T08:00:00.000Z"}


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana"]
)
def test_sums_of_imported_rows_are_those_of_the_rows(connection: Connection, zone: str) -> None:
    """October and November have an end of summer time, or its beginning, in
    three of these zones."""
    chance, first, last = random.Random(3), ms(2026, 10, 2), ms(2026, 11, 29)
    names = {
        "token": "ab",
        "trusted_user": ["", "ann"],
        "upstream": ["box1", "box2"],
        "state": ["ok", "timeout"],
    }
    rows = []
    for number in range(2000):
        row = request_row(number, **{name: chance.choice(values) for name, values in names.items()})
        row |= {
            "started_at": chance.randrange(first, last),
            "cost": chance.random(),
            "gpu_ms": None,
        }
        rows.append(
            row | {name: chance.randrange(1000) for name in ("prompt_tokens", "completion_tokens")}
        )
        rows[-1]["cached_tokens"] = None
    add_hours(connection, *HourlySums(ZoneInfo(zone)).add_up(rows))
    found = reports.usage(
        connection, by="token,user,day", start="2026-10", end="2026-11", timezone=zone
    )
    sums: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        day = datetime.fromtimestamp(row["started_at"] / 1000, ZoneInfo(zone)).date().isoformat()
        entry = sums.setdefault((row["token"], row["trusted_user"], day), [0, 0, 0, 0.0])
        for place, value in enumerate((1, row["state"] != "ok", row["prompt_tokens"], row["cost"])):
            entry[place] += value
    columns = ("requests", "errors", "prompt_tokens", "cost")
    assert {
        (row["token"], row["user"], row["day"]): pytest.approx([row[name] for name in columns])
        for row in found["rows"]
    } == sums
