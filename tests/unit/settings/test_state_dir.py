"""The state directory and the token of an installation that has none."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings
from ollama_proxy.settings.state_dir import (
    FIRST_TOKEN_FILE,
    first_token,
    is_own_token,
    new_token,
    state_directory,
    state_path,
    state_warnings,
    token_digest,
    with_first_token,
)
from ollama_proxy.settings.tokens import SCOPES, Auth, Token
from tests.rig.tables import each_row


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/srv/gw/config/config.yaml", "/srv/gw/state"),
        ("/etc/gw/config.yaml", "/etc/gw/state"),
        ("/app/config.yaml", "/app/state"),
    ],
)
def test_state_is_beside_the_configuration(source: str, expected: str) -> None:
    assert state_path(Settings(source=Path(source)), {}) == Path(expected)


def test_without_a_file_state_is_where_the_default_file_would_put_it(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert state_path(Settings(), {}) == tmp_path / "state"
    assert state_path(Settings(), {"OLLAMA_PROXY_CONFIG": "/etc/gw/c.yaml"}) == Path(
        "/etc/gw/state"
    )


def test_the_directory_of_the_service_manager_comes_first() -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/gw:/var/lib/other"}
    assert state_path(Settings(source=Path("/etc/gw/config.yaml")), environ) == Path("/var/lib/gw")


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = state_directory(Settings(), {"STATE_DIRECTORY": str(tmp_path / "a" / "state")})
    assert directory.stat().st_mode & 0o777 == 0o700
    assert state_directory(Settings(), {"STATE_DIRECTORY": str(directory)}) == directory


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"^{tmp_path}/file/state: cannot be used"):
        state_directory(Settings(), {"STATE_DIRECTORY": f"{tmp_path}/file/state"})


def test_tokens_are_long_random_and_end_in_a_checksum() -> None:
    token, other = new_token(), new_token()
    assert token != other
    assert token.startswith("op_")
    assert len(token) == 3 + 32 + 6
    assert set(token[3:]) <= set(string.ascii_letters + string.digits)
    assert is_own_token(token)


@each_row("place", [3, 20, 34, 35, 40])
def test_a_changed_or_cut_token_is_noticed(place: int) -> None:
    token = new_token()
    changed = token[:place] + ("a" if token[place] != "a" else "b") + token[place + 1 :]
    assert not is_own_token(changed)
    assert not is_own_token(token[:place])


@pytest.mark.parametrize("text", ["", "op_", "team-token-1", "op_" + "é" * 38])
def test_other_text_is_no_own_token(text: str) -> None:
    assert not is_own_token(text)


def test_a_digest_can_be_made_of_anything_a_client_may_send() -> None:
    assert token_digest("\udcff") != token_digest("é")
    assert len(token_digest("")) == 32


def test_the_first_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    token, created = first_token(tmp_path)
    assert (is_own_token(token), created) == (True, True)
    assert first_token(tmp_path) == (token, False)
    assert (tmp_path / FIRST_TOKEN_FILE).stat().st_mode & 0o777 == 0o600


def test_an_empty_file_of_a_start_that_was_killed_is_filled(tmp_path: Path) -> None:
    (tmp_path / FIRST_TOKEN_FILE).touch(0o600)
    token, created = first_token(tmp_path)
    assert created
    assert first_token(tmp_path) == (token, False)


def test_a_damaged_file_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / FIRST_TOKEN_FILE).write_text(new_token()[:-1])
    with pytest.raises(ConfigError, match="does not contain a complete token") as caught:
        first_token(tmp_path)
    assert "op_" not in str(caught.value)


def test_a_link_is_not_followed_to_another_place(tmp_path: Path) -> None:
    (tmp_path / FIRST_TOKEN_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        first_token(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


RACE = """
import sys, time
from pathlib import Path
from ollama_proxy.settings.state_dir import first_token
print("ready", flush=True)
start, directories = float(sys.stdin.readline()), sorted(Path(sys.argv[1]).iterdir())
for number, directory in enumerate(directories):
    while time.monotonic() < start + number * 0.005:
        pass
    print(*first_token(directory))
"""


def test_of_several_processes_one_makes_the_token_and_all_get_it(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}").mkdir()
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    start = time.monotonic() + 0.05
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(f"{start}\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=30)[0].splitlines() for racer in racers]
    for one, other in zip(*answers, strict=True):
        (token, created), (same, created_too) = one.split(), other.split()
        assert (token, sorted([created, created_too])) == (same, ["False", "True"])
    assert len(answers[0]) == 40


def environment(directory: Path) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(directory)}


def test_settings_without_tokens_get_the_first_one(tmp_path: Path) -> None:
    settings, first = with_first_token(Settings(), environment(tmp_path / "state"))
    assert first is not None
    (token,) = settings.auth.tokens()
    assert (token.name, token.digest) == ("first-start", token_digest(first.text))
    assert token.scopes == SCOPES
    assert token.where == str(first.path)
    assert (first.path, first.created) == (tmp_path / "state" / FIRST_TOKEN_FILE, True)
    again, second = with_first_token(Settings(), environment(tmp_path / "state"))
    assert again == settings
    assert second == replace(first, created=False)


def test_the_first_token_is_not_in_what_is_printed_of_it(tmp_path: Path) -> None:
    settings, first = with_first_token(Settings(), environment(tmp_path))
    assert first is not None
    assert first.text not in repr(settings) + repr(first)


@pytest.mark.parametrize(
    "auth",
    [
        Auth(enabled=False),
        Auth(generate_tokens=(Token("a", bytes(32)),)),
        Auth(manage_tokens=(Token("a", bytes(32)),)),
        Auth(generate_tokens=()),
        Auth(manage_tokens=()),
        Auth(generate_tokens=(), manage_tokens=()),
    ],
)
def test_nothing_is_made_where_tokens_exist_or_none_is_asked_for(
    tmp_path: Path, auth: Auth
) -> None:
    settings = Settings(auth=auth)
    assert with_first_token(settings, environment(tmp_path / "state")) == (settings, None)
    assert not (tmp_path / "state").exists()


def test_state_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with_first_token(Settings(), environment(directory))
    (directory / "last-good.yaml").touch()
    (directory / "last-good.yaml").chmod(0o640)
    assert [line.split()[0] for line in state_warnings(directory)] == [
        str(directory / "last-good.yaml")
    ]
    os.chmod(directory, 0o755)
    os.chmod(directory / FIRST_TOKEN_FILE, 0o644)
    assert [line.split()[0] for line in state_warnings(directory)] == [
        str(directory),
        str(directory / FIRST_TOKEN_FILE),
        str(directory / "last-good.yaml"),
    ]


def test_state_behind_a_link_is_looked_at_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to("real")
    (tmp_path / "state" / "dangling").symlink_to("nowhere")
    assert state_warnings(tmp_path / "state") == []
    (tmp_path / "real").chmod(0o755)
    assert len(state_warnings(tmp_path / "state")) == 1


def test_no_state_is_nothing_to_warn_about(tmp_path: Path) -> None:
    assert state_warnings(tmp_path / "state") == []
