"""The disk, the directories and the clock of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from ollama_proxy.cli.doctor.finding import Level
from ollama_proxy.cli.doctor.installation import check_clock, check_directories
from ollama_proxy.settings import Settings


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_a_fault(full_disk: Path) -> None:
    environ = {"STATE_DIRECTORY": str(full_disk / "state"), "LOGS_DIRECTORY": str(full_disk)}
    found = list(check_directories(Settings(), environ))
    assert [(each.level, each.part) for each in found] == [(Level.FAULT, "disk")] * 2


def test_space_is_no_finding(tmp_path: Path) -> None:
    environ = {"STATE_DIRECTORY": str(tmp_path / "state"), "LOGS_DIRECTORY": str(tmp_path)}
    assert [each for each in check_directories(Settings(), environ) if each.part == "files"] == []


@pytest.mark.parametrize(
    ("off_s", "level"), [(3, None), (-60, Level.WARNING), (60, Level.WARNING), (3600, Level.FAULT)]
)
def test_clocks_are_compared(off_s: int, level: Level | None) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=off_s), usegmt=True)
    assert [each.level for each in check_clock("box1", date)] == ([level] if level else [])


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_an_answer_without_a_date_tells_nothing(date: str | None) -> None:
    assert list(check_clock("box1", date)) == []
