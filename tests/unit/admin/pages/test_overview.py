"""The first page, for those who may see it."""

from __future__ import annotations

from pathlib import Path

from tests.rig.in_process import TOKEN, in_process
from tests.unit.admin.conftest import MEMBER


def test_whoever_has_not_signed_in_gets_the_form_for_that(tmp_path: Path) -> None:
    with in_process(session_directory=tmp_path) as app:
        answer = app.ask("GET", "/admin", token=None)
    assert answer.status_code == 200 and 'name="token"' in answer.text and "Boxes" not in answer.text


def test_a_token_in_a_header_is_no_session(tmp_path: Path) -> None:
    with in_process(session_directory=tmp_path) as app:
        for token in (TOKEN, MEMBER):
            assert 'name="token"' in app.ask("GET", "/admin", token=token).text
            assert app.ask("GET", "/admin/events", token=token).status_code == 302


def test_where_no_token_is_required_everybody_sees_it(tmp_path: Path) -> None:
    with in_process(session_directory=tmp_path, auth={"enabled": False}, server={"host": "127.0.0.1"}) as app:
        text = app.ask("GET", "/admin", token=None).text
    assert "Boxes" in text and "Set concurrency on a box" in text and "records.url is null" in text
