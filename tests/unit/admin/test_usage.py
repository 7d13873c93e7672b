"""Reports and single requests through the API; tests/unit/records/test_reports.py
has what they contain."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert

from ollama_proxy.records.database import write
from ollama_proxy.records.tables import usage, usage_hourly
from tests.rig.in_process import InProcess
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.conftest import Api

HOUR = 1_795_000_000_000 // 3_600_000 * 3_600_000
SUMS = {
    "errors": 0,
    "prompt_tokens": 10,
    "cached_tokens": 1,
    "completion_tokens": 5,
    "gpu_seconds": 1.5,
    "cost": 0.25,
}

ATTEMPT: dict[str, Any] = {"upstream": "x", "state": "ok", "error": ""}
ATTEMPT |= {"started_ms": 0.5, "total_ms": 2, "gpu_ms": None, "load_ms": None}


@pytest.fixture
def used(records: InProcessRecords) -> Iterator[InProcessRecords]:
    """Two tokens have used two models."""
    hours = [
        {
            "hour": HOUR,
            "token": token,
            "user": "",
            "model": model,
            "upstream": "demo",
            "dialect": "openai",
            **SUMS,
        }
        | {"requests": count}
        for token, model, count in (("web", "qwen3:8b", 3), ("=cmd()", "demo", 1))
    ]
    rows = [make_row(number) for number in range(3)]
    with write(records.engine) as connection:
        connection.execute(insert(usage_hourly), hours)
        connection.execute(insert(usage), rows)
    yield records


def make_row(number: int) -> dict[str, Any]:
    texts = dict.fromkeys(
        "token user trusted_user dialect route method model target upstream state error".split(),
        "x",
    )
    counts = dict.fromkeys("prompt_tokens cached_tokens completion_tokens".split(), 1)
    times = dict.fromkeys("queue_ms load_ms first_byte_ms total_ms gpu_ms cost".split())
    return {
        **texts,
        **counts,
        **times,
        "row_id": f"{HOUR + number:012x}00",
        "id": f"request-{number}",
        "started_at": HOUR + number,
        "is_known_model": True,
        "attempts": json.dumps([ATTEMPT]),
        "stream": False,
        "status": 200,
        "estimated": False,
        "bytes": 7,
    }


def test_usage_is_summed_by_what_is_asked_for(api: Api, used: InProcessRecords) -> None:
    report = api.ask("GET", "usage?by=token,model,day&from=2026-11&to=2026-11&sort=-requests")
    assert [(row["token"], row["model"], row["requests"]) for row in report["rows"]] == [
        ("web", "qwen3:8b", 3),
        ("=cmd()", "demo", 1),
    ]
    assert (report["total"]["requests"], report["total"]["cost"]) == (4, 0.5)
    assert report["rows"][0].keys() == {"token", "model", "day", "requests", *SUMS}
    assert api.ask("GET", "usage?from=2026-11&to=2026-11&token=web")["total"]["requests"] == 3


def test_csv_has_the_same_rows_and_no_formula(app: InProcess, used: InProcessRecords) -> None:
    answer = app.ask("GET", "/admin/api/usage?by=token,model&from=2026-11&to=2026-11&format=csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
    head, *rows = csv.reader(io.StringIO(answer.text))
    assert head[:3] == ["token", "model", "requests"]
    assert [row[:3] for row in rows] == [["'=cmd()", "demo", "1"], ["web", "qwen3:8b", "3"]]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("by=colour", "by"),
        ("by=token,token", "by"),
        ("from=yesterday", "from"),
        ("from=2026-11-05&to=2026-11-04", "to"),
        ("from=-1", "from"),
        ("from=0001-01-01", "from"),
        ("sort=colour", "sort"),
        ("sort=requests;drop table usage", "sort"),
        ("format=xml", "format"),
        ("days=-5", "days"),
        ("days=1000000000", "days"),
        ("token=" + "x" * 600, "token"),
        ("token=a%00b", "token"),
    ],
)
def test_b23_what_makes_no_sense_is_refused_by_name(
    api: Api, used: InProcessRecords, query: str, param: str
) -> None:
    assert api.ask("GET", f"usage?{query}", status=400)["error"]["param"] == param


@pytest.mark.parametrize("name", ["%", "_", "we_", "'; DROP TABLE usage; --", '"'])
def test_b23_a_name_is_no_pattern(api: Api, used: InProcessRecords, name: str) -> None:
    query = f"from=2026-11&to=2026-11&token={name.replace('%', '%25').replace(';', '%3B')}"
    assert api.ask("GET", f"usage?{query}")["rows"] == []


def test_requests_come_page_by_page_newest_first(api: Api, used: InProcessRecords) -> None:
    page = api.ask("GET", "requests?limit=2")
    rest = api.ask("GET", f"requests?limit=2&cursor={page['cursor']}")
    assert [row["id"] for row in (*page["rows"], *rest["rows"])] == [
        "request-2",
        "request-1",
        "request-0",
    ]
    assert rest["cursor"] is None
    [attempt] = page["rows"][0]["attempts"]
    assert (attempt["upstream"], attempt["total_ms"], attempt["gpu_ms"]) == ("x", 2, None)
    assert api.ask("GET", "requests?token=nobody")["rows"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=%27", "cursor"), ("since=x", "since")],
)
def test_pages_are_bounded(api: Api, query: str, param: str) -> None:
    assert api.ask("GET", f"requests?{query}", status=400)["error"]["param"] == param


def test_every_attempt_has_every_field(api: Api, records: InProcessRecords) -> None:
    row = make_row(0) | {"attempts": json.dumps([{"upstream": "x", "state": "ok"}])}
    with write(records.engine) as connection:
        connection.execute(insert(usage), [row])
    [found] = api.ask("GET", "requests")["rows"]
    assert found["attempts"] == [ATTEMPT | {"started_ms": None, "total_ms": None}]
