"""Lines become rows that every database takes, and rows become sums by the
hour of the time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ollama_proxy.records.rows import MAX_NUMBER, HourlySums, lost_row, usage_row
from ollama_proxy.records.tables import usage
from tests.rig.tables import each_row
from tests.rig.worker_spool import START_MS, begin_fields, end_fields


def end(**fields: Any) -> dict[str, Any]:
    return end_fields("w", 0) | fields


def test_row_has_every_column_and_nothing_else() -> None:
    assert (
        usage_row(end()).keys()
        == lost_row(begin_fields("w", 0)).keys()
        == set(usage.columns.keys())
    )


def test_row_has_the_values_of_its_line() -> None:
    line, row = end(), usage_row(end())
    same = row.keys() - {"attempts", "started_at"}
    assert {name: row[name] for name in same} == {name: line[name] for name in same}
    assert row["started_at"] == START_MS and '"upstream":"box1"' in row["attempts"]


def test_lost_row_has_what_its_begin_line_knew() -> None:
    row = lost_row(begin_fields("w", 0))
    assert (row["state"], row["error"], row["status"], row["token"]) == (
        "lost",
        "worker_lost",
        0,
        "web-team",
    )
    assert (
        row["prompt_tokens"] is row["total_ms"] is row["cost"] is None and not row["is_known_model"]
    )


@each_row(
    ("field", "value", "stored"),
    [
        ("model", "a\0b", "ab"),
        ("model", "x" * 10_000, "x" * 500),
        ("model", "é" * 10_000, "é" * 250),
        ("user", None, ""),
        ("prompt_tokens", 10**40, MAX_NUMBER),
        ("prompt_tokens", -1, 0),
        ("prompt_tokens", 7.9, 7),
        ("prompt_tokens", None, None),
        ("status", 10**12, 999),
        ("bytes", None, 0),
        ("cost", 1, 1.0),
        ("attempts", None, "[]"),
        ("attempts", [{"error": "x" * 70_000}], "[]"),
        ("started_at", 1e300, MAX_NUMBER),
        ("started_at", -5, 0),
    ],
)
def test_values_that_a_database_refuses_are_cut(field: str, value: Any, stored: Any) -> None:
    assert usage_row(end(**{field: value}))[field] == stored


@each_row(
    "damaged",
    [
        {"row_id": ""},
        {"row_id": None},
        {"row_id": "x" * 65},
        {"row_id": "a'; --"},
        {"model": 5},
        {"cost": "much"},
        {"started_at": None},
        {"state": []},
    ],
)
def test_damaged_line_has_no_row(damaged: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        usage_row(end(**damaged))


@each_row(
    ("zone", "at", "hour"),
    [
        ("UTC", "2026-11-23T10:59:59.999", "2026-11-23T10:00"),
        ("Europe/Berlin", "2026-10-25T00:30", "2026-10-25T00:00"),  # 02:30 in summer time
        ("Europe/Berlin", "2026-10-25T01:30", "2026-10-25T01:00"),  # 02:30 again
        ("Asia/Kolkata", "2026-11-23T10:15", "2026-11-23T09:30"),
        ("Asia/Kathmandu", "2026-11-23T10:15", "2026-11-23T10:15"),
        # Its summer time is half an hour.
        ("Australia/Lord_Howe", "2026-10-03T15:45", "2026-10-03T15:00"),
    ],
)
def test_hours_begin_by_the_clock_of_the_time_zone(zone: str, at: str, hour: str) -> None:
    moment, expected = (
        datetime.fromisoformat(each).replace(tzinfo=UTC).timestamp() * 1000 for each in (at, hour)
    )
    assert HourlySums(ZoneInfo(zone)).hour_of(int(moment)) == expected


def test_far_future_has_an_hour() -> None:
    assert HourlySums(UTC).hour_of(MAX_NUMBER) <= MAX_NUMBER


def test_rows_are_added_up_by_their_key() -> None:
    rows = [
        usage_row(end()),
        usage_row(end(state="timeout", prompt_tokens=None, gpu_ms=None, cost=None)),
        usage_row(end(is_known_model=False)),
        usage_row(end(trusted_user="ada@example.org")),
    ]
    sums = {(each["user"], each["model"]): each for each in HourlySums(UTC).add_up(rows)}
    assert sums.keys() == {("", "qwen3:8b"), ("", ""), ("ada@example.org", "qwen3:8b")}
    assert sums["", "qwen3:8b"] == {
        "hour": START_MS,
        "token": "web-team",
        "user": "",
        "model": "qwen3:8b",
        "upstream": "box1",
        "dialect": "openai",
        "requests": 2,
        "errors": 1,
        "prompt_tokens": 10,
        "cached_tokens": 8,
        "completion_tokens": 10,
        "gpu_seconds": 0.25,
        "cost": 0.5,
    }
