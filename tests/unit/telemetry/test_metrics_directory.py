"""The directory of the counts: of one master, and gone with it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ollama_proxy.telemetry.metrics_directory import PREFIX, MetricsDirectory, locked

KILLED = """
import os, signal, sys
from ollama_proxy.telemetry.metrics_directory import MetricsDirectory
MetricsDirectory().open(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_directory_is_for_its_owner_only_and_ends_with_its_master(tmp_path: Path) -> None:
    directory = MetricsDirectory()
    directory.open(str(tmp_path))
    assert directory.path is not None and directory.path.name.startswith(PREFIX)
    assert directory.path.stat().st_mode & 0o777 == 0o700
    path = directory.path
    directory.open(str(tmp_path))
    assert directory.path is path
    directory.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_master_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    running, next_one = MetricsDirectory(), MetricsDirectory()
    running.open(str(tmp_path))
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=30)
    assert len(list(tmp_path.iterdir())) == 2
    next_one.open(str(tmp_path))
    assert set(tmp_path.iterdir()) == {running.path, next_one.path}
    running.close()
    next_one.close()


def test_without_a_directory_there_is_a_reason_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    directory = MetricsDirectory()
    directory.open(str(tmp_path / "file"))
    directory.retire({1})
    assert (directory.path, directory.problem) == (None, "Not a directory")


def test_a_child_does_not_remove_the_directory_of_its_master(tmp_path: Path) -> None:
    directory = MetricsDirectory()
    directory.open(str(tmp_path))
    if not (child := os.fork()):
        directory.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert directory.path is not None and directory.path.is_dir()
    directory.close()


def test_moving_waits_for_no_reader(tmp_path: Path) -> None:
    with locked(tmp_path, fcntl.LOCK_SH), locked(tmp_path, fcntl.LOCK_SH):
        with pytest.raises(BlockingIOError), locked(tmp_path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            pass
