"""The page of changes."""

from __future__ import annotations

import re
from html import unescape
from typing import get_args

import pytest

from ollama_proxy.admin.job_files import JobKind
from ollama_proxy.admin.pages import audit as page
from ollama_proxy.admin.pages.audit import list_values
from ollama_proxy.records.audit import add
from ollama_proxy.records.database import write
from tests.rig.fixtures import function_fixture
from tests.rig.html_tables import read_rows
from tests.rig.in_process import InProcess
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.pages.stock import CANARY, get, open_app

app = function_fixture(lambda records, tmp_path: open_app(records, tmp_path))


def note(
    records: InProcessRecords,
    action: str,
    *values: dict[str, object] | None,
    name: str = "tokens.web",
) -> None:
    with write(records.engine) as connection:
        add(connection, {"by": "boss", "from": "10.0.0.7"}, action, name, *values)


def test_a_change_has_who_from_where_what_and_both_values(
    app: InProcess, records: InProcessRecords
) -> None:
    note(records, "create", None, {"name": "web", "scopes": ["read", "generate"], "expires": None})
    note(
        records,
        "change",
        {"note": "old", "limits": {"a": 1.0, "b": 2}},
        {"note": "", "limits": {"a": 5.0, "b": 2}},
    )
    rows = [row[1:] for row in read_rows(get(app, "/admin/audit").text)]
    assert rows == [
        ["Who", "Address", "What", "Values"],
        ["boss", "10.0.0.7", "changed tokens.web", "note old → removed limits.a 1 → 5"],
        ["boss", "10.0.0.7", "created tokens.web", "name web scopes read, generate"],
    ]


def test_pages_follow_each_other(
    app: InProcess, records: InProcessRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "ROWS", 2)
    for number in range(3):
        note(records, "delete", {"name": f"key-{number}"}, name=f"tokens.key-{number}")
    first = get(app, "/admin/audit").text
    (href,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = get(app, unescape(href)).text
    assert (
        "key-2" in first
        and "key-0" not in first
        and "key-0" in second
        and "To the newest" in second
    )


def test_without_changes_the_page_says_what_will_be_there(app: InProcess) -> None:
    assert "No changes yet" in get(app, "/admin/audit").text


def test_names_and_values_of_others_are_texts(app: InProcess, records: InProcessRecords) -> None:
    note(records, CANARY, {CANARY: CANARY}, {CANARY: [CANARY, 1]}, name=CANARY)
    text = get(app, "/admin/audit").text
    assert CANARY not in text and f"{CANARY} {CANARY}" in read_rows(text)[1][3]


def test_values_are_written_as_in_the_configuration() -> None:
    before = {"limits": {"a": 1.5, "b": 3.0}, "disabled": False, "same": 1, "none": None}
    after = {
        "limits": {"a": 1.5},
        "disabled": True,
        "same": 1,
        "models": ["qwen3*", "tiny"],
        "rows": [{"x": 1}],
    }
    assert [tuple(each.values()) for each in list_values(before, after)] == [
        ("limits.b", "3", None),
        ("disabled", "false", "true"),
        ("models", None, "qwen3*, tiny"),
        ("rows", None, '[{"x":1}]'),
    ]


def test_all_work_on_models_has_a_title() -> None:
    assert {*get_args(JobKind), "cancel"} <= page.ACTIONS.keys()
