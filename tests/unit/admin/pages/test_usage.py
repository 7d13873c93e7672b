"""The page of usage: what it asks for, its table, and the data of its chart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.admin.pages.usage import days_of, rank_series, shorten
from tests.rig.html_tables import read_rows
from tests.rig.in_process import InProcess
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.pages.stock import CANARY, HOUR_MS, NOON, add_hours, get, open_app

NOVEMBER = "range=custom&from=2026-11-01&to=2026-11-30"
DAY = "range=custom&from=2026-11-20&to=2026-11-20"
SUMS = [
    "Requests",
    "Errors",
    "Prompt tokens",
    "Cached",
    "Answer tokens",
    "GPU time, s",
    "Cost, EUR",
]


@pytest.fixture
def app(records: InProcessRecords, tmp_path: Path) -> Iterator[InProcess]:
    add_hours(
        records,
        {
            "token": "web",
            "user": "ann",
            "requests": 3,
            "errors": 1,
            "prompt_tokens": 12345,
            "cost": 0.5,
        },
        {"token": "web", "user": "bob", "hour": NOON - 24 * HOUR_MS},
        {"token": "batch", "model": "other", "requests": 2000, "gpu_seconds": 7200, "cost": 1},
    )
    with open_app(
        records, tmp_path, records={"currency": "EUR", "url": "sqlite:records.db"}
    ) as running:
        yield running


def data(app: InProcess, query: str) -> Any:
    answer = get(app, f"/admin/usage/data?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json


def test_the_table_has_sums_with_units_and_a_total(app: InProcess) -> None:
    assert read_rows(get(app, f"/admin/usage?{NOVEMBER}").text) == [
        ["Key", *SUMS],
        ["batch", "2 000", "0", "10", "0", "5", "7 200.0", "1.00"],
        ["web", "4", "1", "12 355", "0", "10", "3.0", "0.75"],
        ["Total", "2 004", "1", "12 365", "0", "15", "7 203.0", "1.75"],
    ]


def test_days_are_newest_first(app: InProcess) -> None:
    rows = read_rows(get(app, f"/admin/usage?{NOVEMBER}&by=day&then=token").text)
    assert [row[:3] for row in rows] == [
        ["Day", "Key", "Requests"],
        ["2026-11-20", "batch", "2 000"],
        ["2026-11-20", "web", "3"],
        ["2026-11-19", "web", "1"],
        ["Total", "2 004", "1"],
    ]


@pytest.mark.parametrize(
    ("filters", "requests"),
    [
        ("token=web", "4"),
        ("model=other", "2 000"),
        ("token=web&user=ann", "3"),
        ("upstream=demo", "2 004"),
    ],
)
def test_filters_leave_what_matches(filters: str, requests: str, app: InProcess) -> None:
    text = get(app, f"/admin/usage?{NOVEMBER}&{filters}").text
    assert read_rows(text)[-1][1] == requests
    name, value = filters.rpartition("&")[2].split("=")
    assert f'name="{name}" value="{value}"' in text


def test_names_lead_to_their_own_usage(app: InProcess) -> None:
    (href,) = re.findall(
        r'<a href="([^"]+)">web</a>', get(app, f"/admin/usage?{NOVEMBER}&by=token&then=day").text
    )[:1]
    rows = read_rows(get(app, unescape(href)).text)
    assert [row[0] for row in rows[1:-1]] == ["web", "web"]


def test_the_csv_is_that_of_the_same_report(app: InProcess) -> None:
    text = get(app, f"/admin/usage?{NOVEMBER}&by=model&then=day&token=web").text
    (href,) = re.findall(r'download href="([^"]+)"', text)
    answer = get(app, unescape(href))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert (
        answer.text.splitlines()[0].startswith("model,day,requests") and "batch" not in answer.text
    )
    assert len(answer.text.splitlines()) == 3


def test_long_reports_have_their_first_rows_on_the_page(
    app: InProcess, records: InProcessRecords
) -> None:
    add_hours(records, *({"user": f"user-{number}"} for number in range(250)))
    text = get(app, f"/admin/usage?{NOVEMBER}&by=user").text
    assert len(read_rows(text)) == 202 and "the first 200 of 253 rows" in text


def test_a_time_without_requests_says_what_to_do(app: InProcess) -> None:
    text = get(app, "/admin/usage?range=custom&from=2026-01-01&to=2026-01-02").text
    assert (
        "No requests in this time" in text and 'href="/admin/keys"' in text and "<table" not in text
    )
    text = get(app, f"/admin/usage?{NOVEMBER}&token=nobody").text
    assert "Nothing in this time matches" in text and "Show everything" in text


def test_names_of_others_are_texts(app: InProcess, records: InProcessRecords) -> None:
    add_hours(records, {"token": CANARY, "user": CANARY, "model": CANARY, "upstream": CANARY})
    for by in ("token", "user", "model", "upstream"):
        text = get(app, f"/admin/usage?{NOVEMBER}&by={by}&{by}={CANARY}&measure={CANARY}").text
        assert CANARY not in text and read_rows(text)[1][0] == CANARY
        assert CANARY not in get(app, f"/admin/usage?{NOVEMBER}&by={by}").text


def test_what_is_unknown_is_as_usual(app: InProcess, records: InProcessRecords) -> None:
    today = datetime.now(UTC).date()
    add_hours(
        records, {"hour": round(datetime.now(UTC).timestamp()) // 3600 * HOUR_MS, "token": "now"}
    )
    text = get(app, "/admin/usage?range=x&by=x&then=x&measure=x").text
    (href,) = re.findall(r'download href="([^"]+)"', text)
    assert f"from={today - timedelta(days=29)}&to={today}" in unescape(
        href
    ) and "by=token&" in unescape(href)
    assert "now" in [row[0] for row in read_rows(text)]


def test_ranges_are_whole_days() -> None:
    today = date(2026, 3, 31)
    assert days_of("today", today) == ("2026-03-31", "2026-03-31")
    assert days_of("7d", today) == ("2026-03-25", "2026-03-31")
    assert days_of("30d", today) == ("2026-03-02", "2026-03-31")
    assert days_of("month", today) == ("2026-03-01", "2026-03-31")


def test_the_chart_has_every_day_and_the_sums_of_each_name(app: InProcess) -> None:
    chart = data(app, "range=custom&from=2026-11-18&to=2026-11-21&measure=requests")
    assert chart["labels"] == ["11-18", "11-19", "11-20", "11-21"]
    assert chart["series"] == [
        {"name": "batch", "values": [0, 0, 2000, 0]},
        {"name": "web", "values": [0, 1, 3, 0]},
    ]
    summary = chart["summary"].replace("\u202f", " ")
    assert summary == "Requests, 2026-11-18 – 2026-11-21: 2 004 in total, at most 2 003 (11-20)."


@pytest.mark.parametrize(
    ("measure", "unit", "total"),
    [("errors", "", 1), ("tokens", "", 12380), ("gpu_seconds", "s", 7203), ("cost", "EUR", 1.75)],
)
def test_the_chart_can_show_other_amounts(
    measure: str, unit: str, total: float, app: InProcess
) -> None:
    chart = data(app, f"{NOVEMBER}&measure={measure}&by=day")
    assert (chart["unit"], [each["name"] for each in chart["series"]]) == (unit, ["All"])
    assert sum(chart["series"][0]["values"]) == pytest.approx(total)


def test_one_day_is_shown_by_hours_and_a_year_by_months(app: InProcess) -> None:
    hours = data(app, DAY)
    assert hours["labels"] == [f"{hour:02d}:00" for hour in range(24)]
    assert [each["values"][12] for each in hours["series"]] == [2000, 3]
    year = data(app, "range=custom&from=2026-01-15&to=2026-12-31&by=day")
    assert year["labels"] == [f"2026-{month:02d}" for month in range(1, 13)]
    assert year["series"][0]["values"][10] == 2004


def test_a_day_on_which_the_clock_is_set_back_has_25_hours(
    records: InProcessRecords, tmp_path: Path
) -> None:
    at = round(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp() * 1000)
    add_hours(records, {"hour": at, "requests": 7}, {"hour": at - HOUR_MS, "requests": 5})
    with open_app(
        records, tmp_path, records={"timezone": "Europe/Berlin", "url": "sqlite:records.db"}
    ) as app:
        chart = data(app, "range=custom&from=2026-10-25&to=2026-10-25")
    assert (
        chart["labels"][1:5] == ["01:00", "02:00", "02:00", "03:00"] and len(chart["labels"]) == 25
    )
    assert chart["series"][0]["values"][1:5] == [0, 5, 7, 0] and "12 in total" in chart["summary"]


def test_a_chart_without_amounts_says_so(app: InProcess) -> None:
    chart = data(app, "range=custom&from=2026-01-01&to=2026-01-02")
    assert (chart["series"], chart["summary"]) == ([], "Requests, 2026-01-01 – 2026-01-02: none.")


def test_a_chart_of_no_days_is_refused(app: InProcess) -> None:
    assert get(app, "/admin/usage/data?range=custom&from=2026-11").status_code == 400


def test_many_names_are_five_and_the_others() -> None:
    found = rank_series({f"name-{number}": {"11-20": number, "11-21": 1} for number in range(9)})
    assert [name for name, _ in found] == ["name-8", "name-7", "name-6", "name-5", "name-4", None]
    assert found[-1][1] == {"11-20": 0 + 1 + 2 + 3, "11-21": 4}
    assert rank_series({"idle": {"11-20": 0}}) == []


def test_periods_are_short_on_the_axis() -> None:
    assert shorten("2026-11-20T08:00:00+01:00", "hour") == "08:00"
    assert (shorten("2026-11-20", "day"), shorten("2026-11", "month")) == ("11-20", "2026-11")


def test_the_page_is_chinese_for_who_reads_that(app: InProcess) -> None:
    answer = get(app, f"/admin/usage?{NOVEMBER}", Accept_Language="zh")
    assert '<html lang="zh-Hans">' in answer.text and len(read_rows(answer.text)) == 4
