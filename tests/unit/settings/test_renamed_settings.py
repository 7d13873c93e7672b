"""Settings that have been renamed: their former names are read until 1.0, with a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.settings.declare import RENAMED
from ollama_proxy.settings.schema import Settings, load_settings, setting_names, variable_name

OLD = "server: {body_s: 7}\nauth: {manage_tokens: [], max_failures: 3}\n"
OLD_BODY, OLD_FAILURES = "OLLAMA_PROXY__SERVER__BODY_S", "OLLAMA_PROXY__AUTH__MAX_FAILURES"

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load settings from a text, with nothing but the given environment; the
    file is called c.yaml."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str = "default_model: m\n", **environ: str) -> Settings:
        Path("c.yaml").write_text(text)
        Path("c.yaml").chmod(0o600)
        return load_settings(Path("c.yaml"), environ)

    return load_text


def values(settings: Settings) -> tuple[float, int]:
    return settings.server.body_timeout_s, settings.auth.max_failed_logins


def renamed_warnings(settings: Settings) -> list[str]:
    return [warning for warning in settings_warnings(settings, {}) if "is now called" in warning]


def test_old_names_lead_to_declared_ones() -> None:
    assert set(RENAMED.values()) <= set(setting_names())
    assert not RENAMED.keys() & setting_names().keys()


def test_old_names_are_read_from_the_file_with_a_warning(load: Load) -> None:
    settings = load(OLD)
    assert values(settings) == (7.0, 3)
    assert sorted(renamed_warnings(settings)) == [
        (
            "auth.max_failures (c.yaml:2) is now called auth.max_failed_logins; the old name is read until version 1.0"
        ),
        (
            "server.body_s (c.yaml:1) is now called server.body_timeout_s; the old name is read until version 1.0"
        ),
    ]
    assert settings.origins["server.body_timeout_s"] == "c.yaml:1"


def test_old_names_are_read_from_the_environment_with_a_warning(load: Load) -> None:
    settings = load(**{OLD_BODY: "8", OLD_FAILURES: "4"})
    assert values(settings) == (8.0, 4)
    assert sorted(renamed_warnings(settings)) == [
        (
            f"auth.max_failures (environment variable {OLD_FAILURES}) is now called "
            "auth.max_failed_logins; the old name is read until version 1.0"
        ),
        f"server.body_s (environment variable {OLD_BODY}) is now called server.body_timeout_s; "
        "the old name is read until version 1.0",
    ]


def test_environment_overrides_the_file_whichever_names_they_use(load: Load) -> None:
    new = {
        variable_name("server.body_timeout_s"): "9",
        variable_name("auth.max_failed_logins"): "5",
    }
    assert values(load(OLD, **new)) == (9.0, 5)
    assert values(load("server: {body_timeout_s: 7}\n", **{OLD_BODY: "8", OLD_FAILURES: "4"})) == (
        8.0,
        4,
    )


def test_new_names_give_no_warning(load: Load) -> None:
    settings = load("server: {body_timeout_s: 7}\nauth: {max_failed_logins: 3}\n")
    assert values(settings) == (7.0, 3)
    assert renamed_warnings(settings) == []


def test_old_and_new_name_together_are_refused(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            "server: {body_s: 1, body_timeout_s: 2}\nauth: {max_failed_logins: 3, max_failures: 4}\n"
        )
    assert sorted(caught.value.complaints) == [
        "c.yaml:1: server.body_s is the old name of server.body_timeout_s, which is set too",
        "c.yaml:2: auth.max_failures is the old name of auth.max_failed_logins, which is set too",
    ]


@pytest.mark.parametrize(
    "text", ["server: 1", "server: [body_s]", "auth: {max_failures: }", "server: {body_s: none}"]
)
def test_wrong_value_below_an_old_name_is_a_complaint_about_the_file(load: Load, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert [line.startswith("c.yaml:1: ") for line in caught.value.complaints] == [True]


def test_wrong_value_in_an_old_variable_names_that_variable(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{OLD_BODY: "none"})
    (line,) = caught.value.complaints
    assert line.startswith(f"environment variable {OLD_BODY}: server.body_s must be")
