"""Apply each mutation alone in a copy of the tree, and run the tests of its area there: one of
them must fail. `python -m tests.mutations [area or id ...]`; exit with 1 if one is not caught."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutations import PROJECT, TIERS, Mutation, pytest_arguments, read_mutations

CAUGHT, NOT_CAUGHT, TIMED_OUT = "caught", "NOT CAUGHT", "TIMED OUT"
FAILS_ANYWAY, BROKEN = "FAILS WITHOUT IT", "BROKEN"
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Outcome:
    """The result for one mutation; `detail`: the test that caught it, or why none did."""

    state: str
    detail: str
    seconds: float


class Copy:
    """A copy of the tree, as git would commit it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (PROJECT / name).is_file():
                target = directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, target)
        (directory / ".venv").symlink_to(sys.prefix)

    def check(self, mutation: Mutation, timeout_s: float) -> Outcome:
        """Apply the mutation, run its tests, and restore the file."""
        started = time.monotonic()
        file = self.directory / mutation.file
        original, wrong = file.read_text(), mutation.apply(file.read_text())
        modified = file.stat().st_mtime
        try:
            file.write_text(wrong)
            state, detail = self._run(pytest_arguments(mutation.tests), timeout_s)
        finally:
            file.write_text(original)
            os.utime(file, (modified, modified))  # bytecode of the wrong text is of another time
        if state == CAUGHT and self._run([detail], timeout_s)[0] != NOT_CAUGHT:
            state = FAILS_ANYWAY
        return Outcome(state, detail, time.monotonic() - started)

    def _run(self, arguments: list[str], timeout_s: float) -> tuple[str, str]:
        failed = self.directory / ".pytest_cache" / "v" / "cache" / "lastfailed"
        failed.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", *arguments],
            cwd=self.directory,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return TIMED_OUT, " ".join(arguments)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == PASSED:
            return NOT_CAUGHT, " ".join(arguments)
        if process.returncode == FAILED and failed.exists():
            return CAUGHT, next(iter(json.loads(failed.read_text())))
        return BROKEN, output[-2000:]


def main() -> int:
    """Check the chosen mutations, print a row for each, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.mutations", description=__doc__)
    parser.add_argument("chosen", nargs="*", metavar="area or id")
    parser.add_argument("--tier", choices=TIERS)
    parser.add_argument("-n", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--timeout-s", type=float, default=300, help="for the tests of one (300)")
    arguments = parser.parse_args()
    chosen = [
        each
        for each in read_mutations()
        if (not arguments.chosen or {each.id, each.id.partition(".")[0]} & {*arguments.chosen})
        and arguments.tier in (None, each.tier)
    ]
    if not chosen:
        parser.error("there is no such mutation")
    with tempfile.TemporaryDirectory(prefix="mutations-") as directory:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(arguments.n):
            copies.put(Copy(Path(directory, str(number))))

        def check(mutation: Mutation) -> Outcome:
            copy = copies.get()
            try:
                return copy.check(mutation, arguments.timeout_s)
            finally:
                copies.put(copy)

        states = Counter[str]()
        with ThreadPoolExecutor(arguments.n) as threads:
            for mutation, outcome in zip(chosen, threads.map(check, chosen), strict=True):
                states[outcome.state] += 1
                row = f"{outcome.state:17} {outcome.seconds:5.1f} s  {mutation.id:50}"
                print(row, outcome.detail, flush=True)
    print(", ".join(f"{count} {state}" for state, count in states.items()))
    return 0 if set(states) == {CAUGHT} else 1


if __name__ == "__main__":
    sys.exit(main())
