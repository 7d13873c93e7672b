"""`ollama-proxy admin password`: typed twice, or from standard input; printed is only its hash."""

from __future__ import annotations

import getpass
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ollama_proxy.cli.admin import read_password
from ollama_proxy.errors import ConfigError
from ollama_proxy.policy import verify_password
from ollama_proxy.settings import settings_from
from tests.rig.command_line import run_cli

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "correct horse battery staple"


def run(stdin: str) -> subprocess.CompletedProcess[str]:
    return run_cli("admin", "password", env={}, stdin=stdin)


def test_the_lines_for_the_configuration_are_printed() -> None:
    done = run(f"{PASSWORD}\n")
    assert (done.returncode, done.stderr) == (0, "")
    settings = settings_from(done.stdout.encode(), Path("config.yaml"), {})
    assert settings.admin.password_hash is not None
    assert verify_password(settings.admin.password_hash.secret, PASSWORD)
    assert PASSWORD not in done.stdout


@pytest.mark.parametrize("stdin", ["", "\n", "12345678901\n"])
def test_a_short_password_is_refused(stdin: str) -> None:
    done = run(stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert "at least 12 characters" in done.stderr


@pytest.mark.parametrize(("second", "is_same"), [(PASSWORD, True), (PASSWORD + " ", False)])
def test_on_a_terminal_it_is_typed_twice(
    monkeypatch: pytest.MonkeyPatch, second: str, is_same: bool
) -> None:
    typed = iter([PASSWORD, second])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(typed))
    if is_same:
        assert read_password() == PASSWORD
    else:
        with pytest.raises(ConfigError, match="not the same"):
            read_password()


def test_other_commands_do_not_load_what_hashes_passwords() -> None:
    code = (
        "import sys\nfrom ollama_proxy.cli.commands import "
        "main\nmain(['settings'])\nprint('argon2' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert re.search(r"^False$", done.stdout, re.M)
