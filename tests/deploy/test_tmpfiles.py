"""The rule that deletes old chat logs, carried out by the real
systemd-tmpfiles on files of our own."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import time
from pathlib import Path

import pytest

from tests.rig.programs import require_program

RULE = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "ollama-proxy.tmpfiles"


def clean(chats: Path) -> str:
    """Clean now, by the shipped rule with only its directory and its user
    replaced; gives what was said."""
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    rule = RULE.read_text(encoding="utf-8").replace("/var/log/ollama-proxy/chat", str(chats))
    path = chats.parent / "rule.conf"
    path.write_text(rule.replace("ollama-proxy ollama-proxy", f"{user} {group}"), encoding="utf-8")
    command = [require_program("systemd-tmpfiles"), "--clean", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    directory = tmp_path / "chat"
    directory.mkdir(mode=0o700)
    return directory


def test_files_are_kept_for_thirty_days(chats: Path) -> None:
    for days in (0, 29, 31, 400):
        path = chats / f"written-{days}-days-ago.jsonl"
        path.write_text("{}\n")
        then = time.time() - days * 24 * 3600
        os.utime(path, (then, then))
    assert clean(chats) == ""
    assert sorted(path.stem for path in chats.iterdir()) == [
        "written-0-days-ago",
        "written-29-days-ago",
    ]


def test_no_directory_is_no_error(tmp_path: Path) -> None:
    assert clean(tmp_path / "chat") == ""
    assert not (tmp_path / "chat").exists()


def test_the_directory_is_the_one_that_the_service_writes_to() -> None:
    rule = RULE.read_text(encoding="utf-8").splitlines()[-1].split()
    unit = (RULE.parent / "ollama-proxy.service").read_text(encoding="utf-8")
    assert rule[1] == "/var/log/ollama-proxy/chat" and "\nLogsDirectory=ollama-proxy\n" in unit
    assert rule[2:5] == ["0700", "ollama-proxy", "ollama-proxy"]
