"""The configuration that a process starts with, and the last good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.server.startup import LAST_GOOD_FILE, check_start, keep_last_good, load_or_last_good, log_directory
from ollama_proxy.settings.schema import Settings

GOOD = "auth: {generate_tokens: [aaa]}\nservice: {base_url: 'demo:'}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def environ(tmp_path: Path, file: Path) -> dict[str, str]:
    state = tmp_path / "state"
    state.mkdir()
    return {"STATE_DIRECTORY": str(state), "OLLAMA_PROXY_CONFIG": str(file)}


def test_a_good_start_is_kept_for_nobody_else_to_read(environ: dict[str, str]) -> None:
    assert check_start(environ).service.base_url == "demo:"
    kept = Path(environ["STATE_DIRECTORY"]) / LAST_GOOD_FILE
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (GOOD, 0o600)


@pytest.mark.parametrize("broken", ["auth: [", "service: {base_url: 5}"])
def test_a_broken_file_is_replaced_by_the_last_good_one(environ: dict[str, str], file: Path, broken: str) -> None:
    keep_last_good(environ)
    file.write_text(broken)
    [token] = load_or_last_good(environ).auth.tokens()
    assert token.name == "token-1"


def test_a_broken_file_at_the_first_start_is_refused(environ: dict[str, str], file: Path) -> None:
    file.write_text("auth: [")
    with pytest.raises(ConfigError):
        load_or_last_good(environ)


def test_logs_go_where_systemd_says() -> None:
    assert log_directory(Settings(), {"LOGS_DIRECTORY": "/var/log/a:/var/log/b"}) == Path("/var/log/a")
    assert log_directory(Settings(), {}) == Path(Settings().logging.dir)
