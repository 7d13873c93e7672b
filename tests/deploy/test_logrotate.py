"""The logrotate rule, run by the real logrotate on files of our own."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from tests.rig.programs import require_program

RULE = Path(__file__).resolve().parents[2] / "deploy" / "logrotate" / "ollama-proxy"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    directory = tmp_path / "logs"
    directory.mkdir(mode=0o750)
    return directory


def rotate(logs: Path) -> str:
    """Rotate now, by the shipped rule with only its directory and its user replaced;
    gives what logrotate said."""
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    rule = RULE.read_text(encoding="utf-8")
    rule = rule.replace("/var/log/ollama-proxy", str(logs)).replace(
        "ollama-proxy ollama-proxy", f"{user} {group}"
    )
    if os.getuid() != 0:  # only root may switch users
        rule = rule.replace(f"    su {user} {group}\n", "")
    path = logs.parent / "rule"
    path.write_text(rule, encoding="utf-8")
    path.chmod(0o644)
    command = [
        require_program("logrotate"),
        "--force",
        "--state",
        str(logs.parent / "state"),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_file_is_renamed_and_a_fresh_one_created(logs: Path) -> None:
    (logs / "access.log").write_text("line\n")
    inode = (logs / "access.log").stat().st_ino
    assert rotate(logs) == ""
    (old,) = logs.glob("access.log-*")
    fresh = (logs / "access.log").stat()
    assert (old.stat().st_ino, old.read_text()) == (inode, "line\n")
    assert (fresh.st_size, fresh.st_mode & 0o777) == (0, 0o640)


def test_line_written_to_the_renamed_file_is_not_lost(logs: Path) -> None:
    with (logs / "access.log").open("a", encoding="utf-8") as log:
        log.write("before\n")
        log.flush()
        rotate(logs)
        log.write("after\n")
    (old,) = logs.glob("access.log-*")
    assert old.read_text() == "before\nafter\n"


def test_missing_and_empty_files_are_no_error(logs: Path) -> None:
    assert rotate(logs) == ""
    (logs / "error.log").touch()
    assert rotate(logs) == ""
    assert [file.name for file in logs.iterdir()] == ["error.log"]
