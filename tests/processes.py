"""Runs tests in several processes: `python -m tests.processes 5 [arguments of pytest]`.

Each process takes file after file from one list in random order, which SEED repeats, and imports a
file only when it is its turn. With pytest-xdist every process imports and collects all files, 15 s
of the processor each, and a test costs 3 ms more.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

TESTS = Path(__file__).parent
#: Suites in the process of the test.
COMPUTING = {"unit", "app", "fuzz"}
#: The files of the others come in this part of a run.
WAITING_SHARE = 0.8
#: Files that share what takes long: a Chromium and its gateway, the import of LiteLLM.
TOGETHER = {
    "browser": "Chromium",
    "unit/upstreams/litellm": "LiteLLM",
    "sdk/test_litellm.py": "LiteLLM",
}

Node = pytest.Item | pytest.Collector

_RESULTS = re.compile(r"(\d+ \w+, )*(\d+ \w+|no tests ran) in [\d.]+s")
_RESULT = re.compile(r"(\d+) ([a-z]+)")


class Share:
    """A plugin of pytest: runs those files that no other process has taken."""

    def __init__(self, taken: Path, seed: int) -> None:
        self._taken = taken
        self._seed = seed
        self._parts: list[list[Node]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """See pytest. Finds the files, and not yet what is in them."""
        session.perform_collect(genitems=False)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[Node]) -> None:
        """See pytest. First called with what the command line names; when that call is over, pytest
        drops the fixtures of directories that have not been looked into."""
        if not self._parts:
            self._parts = in_parts(files_of(items), self._seed)
            items.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """See pytest."""
        items = self._items(session)
        item = next(items, None)
        while item is not None:
            # A fixture ends with the last test that needs it, so the next one has to be known.
            following = next(items, None)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def _items(self, session: pytest.Session) -> Iterator[pytest.Item]:
        for number, part in enumerate(self._parts):
            try:
                (self._taken / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            for file in part:
                items = list(session.genitems(file))
                session.config.hook.pytest_collection_modifyitems(
                    session=session, config=session.config, items=items
                )
                session.testscollected += len(items)
                yield from items


def files_of(nodes: Iterable[Node]) -> Iterator[Node]:
    """The files in directories, none of which is imported."""
    for node in nodes:
        if isinstance(node, pytest.Directory):
            report = node.ihook.pytest_make_collect_report(collector=node)
            yield from files_of(report.result)
        else:
            yield node


def in_parts(files: Iterable[Node], seed: int) -> list[list[Node]]:
    """In the order in which they are taken. Files that wait for processes are spread among those
    that compute, so that the processor always has work; the last ones are of the second kind,
    which are short, so that no process is left with a long one. What runs together comes first."""
    together: dict[str, list[Node]] = {}
    order: list[tuple[float, Node]] = []
    chance = random.Random(seed)
    for file in files:
        shared = {TOGETHER[each] for each in TOGETHER if file.path.is_relative_to(TESTS / each)}
        if shared:
            together.setdefault(shared.pop(), []).append(file)
        else:
            share = 1 if COMPUTING & set(file.path.parts) else WAITING_SHARE
            order.append((chance.random() * share, file))
    for part in together.values():
        chance.shuffle(part)
    alone = ([file] for _, file in sorted(order, key=lambda each: each[0]))
    return [*together.values(), *alone]


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    parser.addoption("--taken", type=Path, help="directory of a run: which files are taken")


def pytest_configure(config: pytest.Config) -> None:
    """See pytest."""
    share = Share(config.getoption("taken"), config.getoption("randomly_seed"))
    config.pluginmanager.register(share)


def pytest_sessionstart(session: pytest.Session) -> None:
    """See pytest. One line for each file, and nothing else before the end."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    reporter.showfspath = True


def output_of(process: subprocess.Popen[str]) -> list[str]:
    """Prints the files that the process runs, each when it is over. What the process says at its
    end; an error if it did not get that far."""
    assert process.stdout is not None
    file, end = "", list[str]()
    for line in map(str.rstrip, process.stdout):
        if line.startswith("tests/") and not end:
            file = line
            print(line, flush=True)
        elif line:
            end.append(line)
    process.wait()
    if not any(map(_RESULTS.match, end)):
        end.append(f"ERROR a process ended with {process.returncode} in {file}")
    return end


def run(count: int, arguments: Sequence[str]) -> int:
    """Exit status of pytest; 1 if a process ends before its tests do."""
    started = time.monotonic()
    seed = os.environ.get("SEED") or random.randrange(2**32)
    print(f"{count} at a time, in the order of SEED={seed}", flush=True)
    with TemporaryDirectory(prefix="tests-taken-") as taken:
        command = [sys.executable, "-m", "pytest", "-q", "-o", "console_output_style=classic"]
        command += ["-p", "no:cacheprovider", "-p", "tests.processes", f"--taken={taken}"]
        command += [f"--randomly-seed={seed}", *arguments]
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(count)
        ]
        with ThreadPoolExecutor(count) as readers:
            outputs = list(readers.map(output_of, processes))
    results, ended = Counter[str](), 0
    for line in chain.from_iterable(outputs):
        if _RESULTS.match(line):
            results.update({kind: int(number) for number, kind in _RESULT.findall(line)})
            ended += 1
        else:
            print(line)
    summary = ", ".join(f"{results[kind]} {kind}" for kind in sorted(results)) or "no tests ran"
    print(f" {summary} in {time.monotonic() - started:.0f} s ".center(80, "="))
    # A process that comes too late finds nothing to run.
    statuses = {process.returncode for process in processes} - {pytest.ExitCode.NO_TESTS_COLLECTED}
    return 1 if ended < count else max(statuses, default=pytest.ExitCode.NO_TESTS_COLLECTED)


if __name__ == "__main__":
    try:
        sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:  # each process has said how far it came
        sys.exit(pytest.ExitCode.INTERRUPTED)
