"""Several processes run every test once, and say together how it went."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
#: Every process has a share: none begins before all of them have taken a file.
CONFTEST = """
import os, pytest, time

def note(text):
    with open("notes", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")

@pytest.fixture(scope="session", autouse=True)
def server():
    note("start")
    while open("notes").read().count("start") < int(os.environ["PROCESSES"]):
        time.sleep(0.01)
    yield
    note("end")
"""
TESTS = """
from conftest import note

def test_a():
    note(__name__)

def test_b():
    note(__name__)
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A directory of twelve files with two tests each."""
    (tmp_path / "tests" / "inner").mkdir(parents=True)
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST)
    for number in range(12):
        place = tmp_path / "tests" / ("inner" if number % 2 else "")
        (place / f"test_{number}.py").write_text(TESTS)
    return tmp_path / "tests"


def run(
    tests: Path, count: int, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    (tests.parent / "notes").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.processes", str(count), "tests"]
    quickly = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_randomly"}
    return subprocess.run(
        [*command, *arguments],
        cwd=tests.parent,
        env={
            **os.environ,
            **quickly,
            "PYTHONPATH": str(PROJECT),
            "PROCESSES": str(count),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def notes(tests: Path) -> list[tuple[str, int]]:
    """What was noted, by which process."""
    lines = [line.split() for line in (tests.parent / "notes").read_text().splitlines()]
    return [(what, int(pid)) for what, pid in lines]


def test_every_test_runs_once_and_fixtures_of_the_session_once_for_each_process(
    tests: Path,
) -> None:
    done = run(tests, 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert " 24 passed in " in done.stdout.splitlines()[-1]
    assert done.stdout.count("tests/inner/test_1.py ..\n") == 1
    noted = notes(tests)
    ran = Counter(what for what, _ in noted if what.startswith("test"))
    assert ran == {f"test_{number}": 2 for number in range(12)}
    by_process = {pid: [what for what, each in noted if each == pid] for _, pid in noted}
    assert len(by_process) == 3
    for each in by_process.values():
        assert (each[0], each[-1], each.count("start"), each.count("end")) == ("start", "end", 1, 1)


def test_a_failure_in_one_process_is_a_failure_of_the_run(tests: Path) -> None:
    (tests / "test_wrong.py").write_text("def test_c():\n    assert 1 == 2, 'no'\n")
    done = run(tests, 2)
    assert done.returncode == 1
    assert " 1 failed, 24 passed in " in done.stdout.splitlines()[-1]
    assert "AssertionError: no" in done.stdout
    assert "FAILED tests/test_wrong.py::test_c" in done.stdout


def test_a_file_that_cannot_be_imported_is_a_failure(tests: Path) -> None:
    (tests / "test_broken.py").write_text("import nothing_of_this_name\n")
    done = run(tests, 1)
    assert done.returncode == 1
    assert " 1 error, 24 passed in " in done.stdout.splitlines()[-1]
    assert "nothing_of_this_name" in done.stdout


def test_a_process_that_dies_is_a_failure(tests: Path) -> None:
    (tests / "test_dies.py").write_text("import os\ndef test_d():\n    os._exit(0)\n")
    done = run(tests, 1)
    assert done.returncode == 1
    assert "ERROR a process ended with 0 in tests/test_dies.py" in done.stdout


def test_options_choose_among_the_tests(tests: Path) -> None:
    chosen = run(tests, 2, "--ignore", "tests/inner", "-k", "test_a")
    assert " 6 deselected, 6 passed in " in chosen.stdout.splitlines()[-1]
    nothing = run(tests, 2, "-k", "test_of_another_name")
    assert nothing.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_seed_repeats_the_order(tests: Path) -> None:
    first = run(tests, 1)
    seed = re.findall(r"SEED=(\d+)", first.stdout)[0]
    again, other = run(tests, 1, SEED=seed), run(tests, 1, SEED="1" + seed)
    orders = [re.findall(r"tests/\S+", each.stdout) for each in (first, again, other)]
    assert orders[0] == orders[1] != orders[2]
