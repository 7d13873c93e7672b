"""What a worker's settings are made of, and when they change."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.server import live_settings
from ollama_proxy.server.live_settings import EXPIRY_S, LiveSettings, end_expired
from ollama_proxy.settings import Managed, Settings, settings_from, write_snapshot
from ollama_proxy.settings.managed import SNAPSHOT_FILE
from tests.rig.clock import ManualClock

URL = "sqlite:state/records.db"


def loaded(text: str = "", url: str = URL) -> Settings:
    return settings_from(f'{text}records: {{url: "{url}"}}\n'.encode(), Path("config.yaml"), {})


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "digest": hashlib.sha256(name.encode()).hexdigest(), **more}


def frame(revision: int, *names: str, **more: Any) -> dict[str, Any]:
    tokens = [key(name) for name in names]
    return {
        "op": "managed",
        "revision": revision,
        "tokens": tokens,
        "models": {},
        "upstreams": {},
        **more,
    }


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(tmp_path)}


class Recorded:
    """Live settings, and the names of the tokens after each change."""

    def __init__(self, settings: Settings, environ: dict[str, str]) -> None:
        self.live = LiveSettings(settings, environ)
        self.live.on_change = self.note
        self.changes: list[list[str]] = []

    def note(self, settings: Settings) -> None:
        self.changes.append([token.name for token in settings.auth.tokens()])


@pytest.fixture
def recorded(environ: dict[str, str]) -> Recorded:
    return Recorded(loaded("auth: {generate_tokens: [aaa]}\n"), environ)


def test_keys_come_beside_the_tokens_of_the_file(
    recorded: Recorded, environ: dict[str, str]
) -> None:
    recorded.live.receive(frame(1, "ci"))
    recorded.live.receive(frame(1, "ci"))
    recorded.live.replace_file(loaded("auth: {generate_tokens: [aaa, bbb]}\n"))
    recorded.live.receive(frame(2))
    assert recorded.changes == [
        ["token-1", "ci"],
        ["token-1", "token-2", "ci"],
        ["token-1", "token-2"],
    ]


def test_an_installation_without_tokens_keeps_its_first_one(environ: dict[str, str]) -> None:
    recorded = Recorded(loaded(), environ)
    recorded.live.receive(frame(1, "ci"))
    assert recorded.changes == [["first-start", "ci"]]


def test_the_snapshot_is_used_until_the_coordinator_reports(
    recorded: Recorded, environ: dict[str, str]
) -> None:
    recorded.live.receive(frame(1, "ci"))
    [other, another] = [Recorded(loaded(url=url), environ) for url in (URL, "sqlite:other.db")]
    assert [token.name for token in other.live.build().auth.tokens()] == ["first-start", "ci"]
    assert [token.name for token in another.live.build().auth.tokens()] == ["first-start"]


def test_a_worker_of_an_application_built_earlier_follows_the_snapshot(
    recorded: Recorded, environ: dict[str, str], tmp_path: Path
) -> None:
    recorded.live.refresh()
    assert recorded.changes == []
    write_snapshot(tmp_path, URL, Managed(1, [key("ci")]))
    recorded.live.refresh()
    assert recorded.changes == [["token-1", "ci"]]


def test_without_records_nothing_is_managed(environ: dict[str, str], tmp_path: Path) -> None:
    write_snapshot(tmp_path, URL, Managed(1, [key("ci")]))
    off = settings_from(
        b"auth: {generate_tokens: [aaa]}\nrecords: {url: null}\n", Path("config.yaml"), {}
    )
    recorded = Recorded(off, environ)
    recorded.live.receive(frame(2, "ci", "web"))
    assert recorded.changes == [["token-1"]]
    assert b"web" not in (tmp_path / SNAPSHOT_FILE).read_bytes()


def test_a_file_that_is_refused_changes_nothing(recorded: Recorded) -> None:
    def refuse(settings: Settings) -> None:
        raise ConfigError("no")

    recorded.live.on_change = refuse
    with pytest.raises(ConfigError):
        recorded.live.replace_file(loaded("auth: {generate_tokens: [bbb, ccc]}\n"))
    recorded.live.on_change = recorded.note
    recorded.live.receive(frame(1, "ci"))
    assert recorded.changes == [["token-1", "ci"]]


@pytest.mark.parametrize("wrong", [{}, {"tokens": 1}, frame(1, tokens=[1]), frame(1, models=[1])])
def test_a_frame_of_another_version_is_reported_and_changes_nothing(
    recorded: Recorded, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    recorded.live.receive(wrong)
    assert recorded.changes == []
    assert [record.message for record in caplog.records] == ["managed_settings_failed"]


def test_a_report_that_could_not_be_applied_is_tried_again(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(settings: Settings) -> None:
        raise ConfigError("no")

    recorded.live.on_change = fail
    recorded.live.receive(frame(1, "ci"))
    recorded.live.on_change = recorded.note
    recorded.live.receive(frame(1, "ci"))
    assert recorded.changes == [["token-1", "ci"]]
    assert [record.message for record in caplog.records] == ["managed_settings_failed"]


def test_a_snapshot_that_cannot_be_written_keeps_no_key_from_working(
    recorded: Recorded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SNAPSHOT_FILE).mkdir()
    recorded.live.receive(frame(1, "ci"))
    recorded.live.receive(frame(2, "ci", "web"))
    assert recorded.changes == [["token-1", "ci"], ["token-1", "ci", "web"]]
    assert {record.message for record in caplog.records} == {"managed_settings_failed"}


def test_what_does_not_fit_is_reported_once_and_stops_nothing(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    recorded.live.receive(frame(1, "token-1", "ci"))
    recorded.live.receive(frame(2, "token-1", "ci", "web"))
    assert recorded.changes == [["token-1", "ci"], ["token-1", "ci", "web"]]
    [record] = caplog.records
    assert record.message == "managed_entry_skipped"
    assert record.__dict__["fields"] == {
        "kind": "tokens",
        "name": "token-1",
        "reason": "the same name is in config.yaml:1, which takes precedence",
    }


def test_an_upstream_that_cannot_be_built_stops_no_other(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build = live_settings.build_fleet

    def fail(settings: Settings, environ: dict[str, str]) -> Any:
        if settings.upstreams[0].name == "box2":
            raise ConfigError("not here")
        return build(settings, environ)

    monkeypatch.setattr(live_settings, "build_fleet", fail)
    boxes = {name: {"base_url": "http://10.0.0.6:11434"} for name in ("box2", "box3")}
    recorded.live.receive(frame(1, "ci", upstreams=boxes))
    assert [each.name for each in recorded.live.build().upstreams] == ["ollama", "box3"]
    assert "not here" in str(caplog.records[0].__dict__["fields"])


def test_the_end_of_a_day_ends_what_expires_with_it(clock: ManualClock) -> None:
    before, midnight = (
        datetime(2027, 1, 30, 23, 59, 55, tzinfo=UTC).timestamp(),
        datetime(2027, 1, 31, tzinfo=UTC).timestamp(),
    )
    clock.set_time(before)
    ended: list[float] = []
    run = gevent.spawn(end_expired, lambda: ended.append(clock.time()), clock)
    try:
        clock.advance(midnight - before - 0.1)
        assert not ended
        clock.advance(2 * EXPIRY_S)
        assert len(ended) == 1 and midnight <= ended[0] <= midnight + EXPIRY_S
        # Also if the clock is set back: it may have been wrong before.
        clock.set_time(before)
        clock.advance(EXPIRY_S)
        assert len(ended) == 2
    finally:
        run.kill()
