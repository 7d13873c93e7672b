"""The page of requests: rows, filters, details, and where the time went."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.admin.pages.requests import ROWS, split_attempt, split_request
from tests.rig.html_tables import read_rows
from tests.rig.in_process import InProcess
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.pages.stock import CANARY, add_requests, get, make_request, open_app


@pytest.fixture
def app(records: InProcessRecords, tmp_path: Path) -> Iterator[InProcess]:
    with open_app(
        records, tmp_path, records={"currency": "EUR", "url": "sqlite:records.db"}
    ) as running:
        yield running


def listed(text: str) -> list[list[str]]:
    """The rows of requests of a page, without their details."""
    return [row[1:8] for row in read_rows(text)[1:] if len(row) == 9]


def spans(parts: list[dict[str, Any]]) -> list[tuple[str, str, float, float]]:
    return [(part["title"], part["kind"], part["start"], part["value"]) for part in parts]


def test_a_row_has_who_what_where_and_how_it_went(
    app: InProcess, records: InProcessRecords
) -> None:
    add_requests(records, make_request(user="ann", model="coder"))
    text = get(app, "/admin/requests").text
    assert listed(text) == [["ok", "web ann", "coder → demo", "demo", "1 234", "56", "100 ms"]]
    assert 'datetime="2026-11-20T12:00:00.000Z"' in text


def test_details_have_the_rest(app: InProcess, records: InProcessRecords) -> None:
    failed = {"upstream": "box1", "state": "timeout", "error": "upstream_timeout", "load_ms": None}
    failed |= {"started_ms": 1.0, "total_ms": 40.0, "gpu_ms": 0.0}
    ok = make_request()["attempts"][0] | {"started_ms": 41.0, "total_ms": 59.0}
    add_requests(
        records, make_request(attempts=[failed, ok], estimated=True, cached_tokens=77, error="odd")
    )
    text = get(app, "/admin/requests").text
    for part in (
        "request-0",
        "openai /v1/chat/completions, as a stream",
        "200 odd",
        "77",
        "0.50\u00a0EUR",
        "7\u00a0kB",
    ):
        assert f"<dd>{part}</dd>" in text
    assert "estimated" in text and "2 attempts" in text
    attempts = [row[:5] for row in read_rows(text) if len(row) == 6]
    assert attempts[1:] == [
        ["box1", "timeout upstream_timeout", "1 ms", "40 ms", "0 ms"],
        ["demo", "ok", "41 ms", "59 ms", "50 ms"],
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["2", "1", "0"]),
        ("state=refused", ["1"]),
        ("token=batch", ["2"]),
        ("model=other&token=", ["1"]),
        ("since=2026-11-20T12:00", ["2", "1", "0"]),
        ("since=2026-11-20T12:01", []),
        ("token=we", []),
    ],
)
def test_filters_leave_what_matches(
    query: str, found: list[str], app: InProcess, records: InProcessRecords
) -> None:
    rows = [{}, {"state": "refused", "model": "other"}, {"token": "batch"}]
    add_requests(records, *(make_request(number, **row) for number, row in enumerate(rows)))
    text = get(app, f"/admin/requests?{query}").text
    assert re.findall(r"<dd>request-(\d+)</dd>", text) == found
    assert ("No request matches" in text) is (not found)


def test_pages_follow_each_other(app: InProcess, records: InProcessRecords) -> None:
    add_requests(records, *(make_request(number) for number in range(ROWS + 3)))
    first = get(app, "/admin/requests?token=web").text
    assert len(listed(first)) == ROWS and 'id="follow"' in first
    (href,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = get(app, unescape(href)).text
    assert re.findall(r"<dd>request-(\d+)</dd>", second) == ["2", "1", "0"]
    assert 'rel="next"' not in second and 'id="follow"' not in second and "To the newest" in second


def test_a_page_that_follows_gets_the_same_rows_alone(
    app: InProcess, records: InProcessRecords
) -> None:
    add_requests(records, make_request(1), make_request(2, token="batch"))
    text = get(app, "/admin/requests/rows?token=batch").text
    assert "<html" not in text and len(listed(text)) == 1
    (key,) = re.findall(r'<tbody data-key="([^"]+)">', text)
    assert key in get(app, "/admin/requests").text


def test_a_page_that_follows_is_told_of_problems(app: InProcess, records: InProcessRecords) -> None:
    assert "data-problem" not in get(app, "/admin/requests/rows").text
    records.is_down = True
    assert 'data-problem="The database of the records' in get(app, "/admin/requests/rows").text


def test_two_requests_of_one_id_have_a_key_each(app: InProcess, records: InProcessRecords) -> None:
    add_requests(records, make_request(1, id="mine"), make_request(2, id="mine"))
    assert len(set(re.findall(r'data-key="([^"]+)"', get(app, "/admin/requests").text))) == 2


def test_without_requests_the_page_says_what_to_do(app: InProcess) -> None:
    text = get(app, "/admin/requests").text
    assert "No requests yet" in text and 'href="/admin/keys"' in text


def test_an_attempt_without_some_of_its_times_is_shown(
    app: InProcess, records: InProcessRecords
) -> None:
    """As a row that another version of the gateway has written may be."""
    add_requests(
        records,
        make_request(attempts=[{"upstream": "box1", "state": "timeout"}, {"total_ms": 59.0}]),
    )
    answer = get(app, "/admin/requests")
    assert answer.status_code == 200
    attempts = [row[:5] for row in read_rows(answer.text) if len(row) == 6]
    assert attempts[1:] == [["box1", "timeout", "–", "–", "–"], ["", "", "–", "59 ms", "–"]]


def test_names_of_others_are_texts(app: InProcess, records: InProcessRecords) -> None:
    attempt = make_request()["attempts"][0] | {"upstream": CANARY, "state": CANARY, "error": CANARY}
    names = dict.fromkeys(
        "id token user dialect route model target upstream state error".split(), CANARY
    )
    add_requests(records, make_request(attempts=[attempt, attempt], **names))
    text = get(app, f"/admin/requests?model={CANARY}").text
    assert CANARY not in text and listed(text)[0][3] == CANARY


def test_time_is_split_into_queue_load_first_byte_and_answer() -> None:
    attempt = {
        "state": "ok",
        "upstream": "box1",
        "started_ms": 1000.0,
        "load_ms": 3000.0,
        "total_ms": 9000.0,
    }
    row = make_request(queue_ms=1000.0, first_byte_ms=4500.0, total_ms=10_000.0, attempts=[attempt])
    parts = split_request(row)
    assert spans(parts) == [
        ("Queue", "queue", 0, 1000),
        ("Load", "load", 1000, 3000),
        ("First byte", "prompt", 4000, 500),
        ("Answer", "answer", 4500, 5500),
    ]
    assert parts[1]["text"] == "3.0\u00a0s"
    assert spans(split_attempt(attempt, 10_000)) == [
        ("Load", "load", 1000, 3000),
        ("box1", "answer", 4000, 6000),
    ]


def test_time_of_a_failure_is_seen() -> None:
    lost = {
        "state": "timeout",
        "upstream": "box1",
        "started_ms": 0.0,
        "load_ms": None,
        "total_ms": 900.0,
    }
    row = make_request(state="timeout", first_byte_ms=None, total_ms=900.0, attempts=[lost])
    assert spans(split_request(row)) == [("Until the failure", "failed", 0, 900)]
    assert spans(split_attempt(lost, 900)) == [("box1", "failed", 0, 900)]
    again = {
        "state": "ok",
        "upstream": "box2",
        "started_ms": 900.0,
        "load_ms": None,
        "total_ms": 100.0,
    }
    row = make_request(queue_ms=5.0, first_byte_ms=950.0, total_ms=1000.0, attempts=[lost, again])
    assert [each[:2] for each in spans(split_request(row))] == [
        ("Queue", "queue"),
        ("Earlier attempts", "failed"),
        ("First byte", "prompt"),
        ("Answer", "answer"),
    ]


def test_parts_are_within_the_total() -> None:
    """A stream begins with comments while it waits, and a box may measure more than the gateway."""
    attempt = {
        "state": "ok",
        "upstream": "box1",
        "started_ms": 800.0,
        "load_ms": 5000.0,
        "total_ms": 200.0,
    }
    row = make_request(queue_ms=800.0, first_byte_ms=100.0, total_ms=1000.0, attempts=[attempt])
    assert spans(split_request(row)) == [("Queue", "queue", 0, 800), ("Load", "load", 800, 200)]
    assert split_request(make_request(total_ms=None, first_byte_ms=None, attempts=[])) == []
