"""What pages of the records show if there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.in_process import InProcess
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.pages.stock import get, open_app

PAGES = ["/admin/usage", "/admin/requests", "/admin/audit"]


@pytest.fixture
def app(records: InProcessRecords, tmp_path: Path) -> Iterator[InProcess]:
    with open_app(records, tmp_path, models={"coder": {"target": "demo"}}) as running:
        yield running


@pytest.mark.parametrize("page", PAGES)
def test_without_records_a_page_says_how_to_have_them(page: str, tmp_path: Path) -> None:
    with open_app(None, tmp_path) as app:
        answer = get(app, page)
    assert answer.status_code == 200
    assert "Nothing is recorded here" in answer.text and "<code>records.url</code>" in answer.text
    assert "<table" not in answer.text and "<form class=" not in answer.text


@pytest.mark.parametrize("page", PAGES)
def test_a_page_stays_up_without_the_database(
    page: str, app: InProcess, records: InProcessRecords
) -> None:
    records.is_down = True
    answer = get(app, page)
    assert answer.status_code == 200 and "The database of the records" in answer.text
    records.is_down = False
    assert "The database of the records" not in get(app, page).text


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/admin/usage?range=custom&from=x", "from must be a day"),
        ("/admin/requests?since=x", "since must be a day"),
        ("/admin/requests?cursor=-", "cursor must be that of an earlier page."),
        ("/admin/audit?cursor=x", "cursor must be that of an earlier page."),
    ],
)
def test_a_parameter_that_is_wrong_is_said_on_the_page(
    path: str, problem: str, app: InProcess
) -> None:
    answer = get(app, path)
    assert answer.status_code == 400 and problem in answer.text and 'role="alert"' in answer.text


def test_names_can_be_chosen_that_the_gateway_knows(app: InProcess) -> None:
    text = get(app, "/admin/usage").text
    assert '<option value="coder">' in text and '<option value="demo">' in text
