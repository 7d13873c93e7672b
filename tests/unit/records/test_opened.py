"""An open database: import, sums for quotas, calls, and news for workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_proxy.coordination import Spent
from ollama_proxy.errors import NotFound
from ollama_proxy.records.opened import Opened

ACTOR = {"by": "cli:root", "from": ""}


@pytest.fixture
def opened(records_url: str, tmp_path: Path) -> Iterator[Opened]:
    database = Opened(
        tmp_path, {"url": records_url, "timezone": "Asia/Kolkata", "retention_days": 90}
    )
    yield database
    database.close()


def write_lines(directory: Path, count: int, started_at: float) -> None:
    (directory / "usage").mkdir()
    end = {
        "token": "team",
        "started_at": started_at,
        "state": "ok",
        "prompt_tokens": 2,
        "completion_tokens": 3,
    }
    lines = [
        {"spool": 1},
        *({"end": {**end, "row_id": f"{number:032x}", "gpu_ms": 500}} for number in range(count)),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "usage" / "019abcdef000-1-0a0b0c0d.000000").write_text(text, encoding="utf-8")


def test_imported_lines_count_for_quotas_of_their_time(opened: Opened, tmp_path: Path) -> None:
    now = time.time()
    write_lines(tmp_path, 100, now)
    while opened.import_some():
        pass
    hour = (now + 1800) // 3600 * 3600 - 1800  # hours begin at half past there
    assert opened.read_used(hour) == {"token:team": Spent(500, 50.0, 0.0)}
    assert opened.read_used(hour + 3600) == {}


def test_old_rows_are_removed_and_sums_stay(opened: Opened, tmp_path: Path) -> None:
    started_at = time.time() - 91 * 86_400
    write_lines(tmp_path, 3, started_at)
    opened.import_some()
    opened.tidy()
    page = opened.call("requests", {})
    assert isinstance(page, dict) and page["rows"] == []
    assert opened.read_used((started_at + 1800) // 3600 * 3600 - 1800) == {
        "token:team": Spent(15, 1.5, 0.0)
    }


def test_change_is_news_once(opened: Opened) -> None:
    known = opened.read_managed(None)
    assert known is not None and known["tokens"] == []
    assert opened.read_managed(known["revision"]) is None
    made = opened.call("create_token", {"name": "web", "fields": {}, "actor": ACTOR})
    assert isinstance(made, dict) and made["token"]
    news = opened.read_managed(known["revision"])
    assert news is not None and [token["name"] for token in news["tokens"]] == ["web"]
    assert made["token"] not in json.dumps(news)


def test_unknown_call_is_an_error_and_not_an_attribute(opened: Opened) -> None:
    with pytest.raises(NotFound):
        opened.call("__import__", {})


def test_tidying_deletes_rows_that_are_too_old(opened: Opened, tmp_path: Path) -> None:
    write_lines(tmp_path, 3, time.time() - 91 * 86_400)
    while opened.import_some():
        pass
    rows = {"state": "", "token": "", "model": "", "since": "", "limit": 10, "cursor": ""}
    before = opened.call("requests", rows)
    opened.tidy()
    after = opened.call("requests", rows)
    assert isinstance(before, dict) and isinstance(after, dict)
    assert (len(before["rows"]), len(after["rows"])) == (3, 0)
