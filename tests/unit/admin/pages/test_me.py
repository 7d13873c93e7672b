"""A member's own page, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from ollama_proxy.admin.pages import me
from ollama_proxy.admin.pages.key_form import LIMIT_TITLES
from ollama_proxy.admin.pages.me import read_within
from ollama_proxy.settings import Limits
from tests.rig.in_process import in_process
from tests.rig.in_process_records import InProcessRecords


def test_what_takes_too_long_is_not_waited_for() -> None:
    assert read_within(5, lambda: 1) == 1
    assert read_within(0.01, lambda: gevent.sleep(5)) is None


def test_the_time_limit_of_somebody_else_is_not_ours() -> None:
    def read() -> None:
        """Has a limit of its own."""
        with gevent.Timeout(0.01):
            gevent.sleep(5)

    with pytest.raises(gevent.Timeout):
        read_within(5, read)


def test_every_limit_has_a_title() -> None:
    assert set(LIMIT_TITLES) == set(Limits.__dataclass_fields__)


@pytest.fixture
def ask(records: InProcessRecords, tmp_path: Path) -> Callable[..., str]:
    """Asks a gateway that requires no token for a page."""

    def ask_page(path: str, **config: Any) -> str:
        directory = tmp_path / "sessions"
        config |= {"auth": {"enabled": False}, "server": {"host": "127.0.0.1"}}
        with in_process(coordinator=records, session_directory=directory, **config) as app:
            answer = app.ask("GET", path, token=None)
        assert answer.status_code == 200
        return answer.text

    return ask_page


def test_only_the_own_name_is_asked_for(records: InProcessRecords, ask: Callable[..., str]) -> None:
    assert "There are no requests yet." in ask("/admin/me")
    assert "There are no requests yet." in ask("/admin/me/usage?token=other")
    assert {arguments["token"] for _, arguments in records.asked} == {"anyone"}
    records.is_down = True
    assert "The usage is not known now" in ask("/admin/me")


def test_the_page_shows_what_the_api_reports_of_the_caller(
    records: InProcessRecords, tmp_path: Path
) -> None:
    config: dict[str, Any] = {"auth": {"enabled": False}, "server": {"host": "127.0.0.1"}}
    with in_process(coordinator=records, session_directory=tmp_path / "sessions", **config) as app:
        assert app.ask("GET", "/admin/me/usage", token=None).status_code == 200
        asked_by_page, records.asked = records.asked, []
        for _, arguments in asked_by_page[:2]:
            app.ask(
                "GET",
                f"/admin/api/me/usage?by=model&sort=-requests&from={arguments['start']}",
                token=None,
            )
        app.ask("GET", "/admin/api/me/requests?limit=20", token=None)
    assert len(asked_by_page) == 3 and records.asked == asked_by_page


def test_slow_records_come_later(ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(me, "PAINT_S", 0.01)
    monkeypatch.setattr(me, "read_usage", lambda: gevent.sleep(2))
    text = ask("/admin/me")
    assert 'hx-get="/admin/me/usage"' in text and "The records are slow to answer." in text


def test_models_that_are_not_known_yet_come_later(ask: Callable[..., str]) -> None:
    assert "<code>demo" in ask("/admin/me/models")
    upstreams = [{"name": "gone", "base_url": "http://127.0.0.1:9"}]
    text = ask("/admin/me", upstreams=upstreams)
    assert 'hx-get="/admin/me/models"' in text and "The list of gone is not known now." in text
    assert "hx-get" not in ask("/admin/me/models", upstreams=upstreams)
