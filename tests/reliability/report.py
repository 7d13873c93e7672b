"""The result of each row, as docs/reliability.md: collected from the tests, over all
processes of a run.

A pytest plugin. The file is written at the end of a session with BOTH_DOORS in its environment in
which every row of the table ran, and no option left out some of its tests; it is left alone after
any other.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from tests.reliability.rows import ABSENT, GROUPS, PARTLY, ROWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
#: Rows run through both doors, and the page is written: `make long` sets it.
BOTH_DOORS = bool(os.environ.get("BOTH_DOORS"))
_DIRECTORY = "tests/reliability/"
_ROW_TEST = re.compile(r"test_([cupbs]\d+)_")
_SUFFIX = ".outcomes"

_current: list[pytest.Item] = []


@contextmanager
def noting(item: pytest.Item) -> Iterator[None]:
    """While the block runs, figures belong to this test."""
    _current.append(item)
    try:
        yield
    finally:
        _current.remove(item)


def note_door(door: str) -> None:
    """The test that runs has gone through this door."""
    _note("door", door)


def note_figure(name: str, value: float, unit: str) -> None:
    """A measured figure of the test that runs."""
    _note("figure", (name, value, unit))


def note_probe(p99_ms: float, worst_ms: float) -> None:
    """What the steady probe saw in the row that is over: 0 where nothing counted."""
    _note("probe", (p99_ms, worst_ms))


def _note(kind: str, value: object) -> None:
    for item in _current[-1:]:
        item.user_properties.append((kind, value))


def row_of(name: str) -> str | None:
    """The row that a test is for, by its name."""
    match = _ROW_TEST.match(name)
    return match[1].upper() if match else None


@dataclass
class Outcome:
    """One row: all of its tests together."""

    failed: bool = False
    passed: int = 0
    doors: set[str] = field(default_factory=set)
    #: By name: the unit, and the value of each time it was measured.
    figures: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    probe_ms: list[float] = field(default_factory=list)

    @property
    def has_run(self) -> bool:
        """Whether any of its tests came to an end."""
        return self.failed or self.passed > 0

    def take(self, report: pytest.TestReport) -> None:
        """One phase of one of its tests. What was measured is complete in the last phase."""
        self.failed = self.failed or report.failed
        self.passed += report.when == "call" and report.passed
        if report.when == "teardown":
            for kind, value in report.user_properties:
                self._take_property(kind, value)

    def merge(self, other: Outcome) -> None:
        """What another process says of the same row."""
        self.failed = self.failed or other.failed
        self.passed += other.passed
        self.doors |= other.doors
        for name, values in other.figures.items():
            self.figures.setdefault(name, []).extend(values)
        self.probe_ms += other.probe_ms

    def _take_property(self, kind: str, value: object) -> None:
        match kind, value:
            case "door", str(door):
                self.doors.add(door)
            case "figure", (str(name), float() | int() as number, str(unit)):
                self.figures.setdefault((name, unit), []).append(float(number))
            case "probe", (float() | int() as p99_ms, _):
                self.probe_ms.append(float(p99_ms))


class Reliability:
    """The plugin."""

    def __init__(self, page: Path = PAGE, *, both_doors: bool = BOTH_DOORS) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._page = page
        self._both_doors = both_doors

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """See pytest."""
        path, _, name = report.nodeid.partition("::")
        row = row_of(name)
        if row and path.startswith(_DIRECTORY):
            self.outcomes.setdefault(row, Outcome()).take(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page if the whole table ran through both doors. Of several processes
        the last one does it, as it finds the outcomes of all."""
        if not self._both_doors or is_selection(session.config):
            return
        if run := session.config.getoption("taken", None):
            save_outcomes(self.outcomes, run)
            self.outcomes = read_outcomes(run)
        if is_complete(self.outcomes):
            self._page.write_text(render(self.outcomes), encoding="utf-8")


def save_outcomes(outcomes: Mapping[str, Outcome], run: Path) -> None:
    """Write what this process has found to the directory of the run, for those that end later.
    The file is complete when it appears under its name."""
    with NamedTemporaryFile(dir=run, delete=False) as file:
        pickle.dump(outcomes, file)
    Path(file.name).rename(f"{file.name}{_SUFFIX}")


def read_outcomes(run: Path) -> dict[str, Outcome]:
    """What all processes of the run have saved so far."""
    outcomes: dict[str, Outcome] = {}
    for file in run.glob(f"*{_SUFFIX}"):
        for row, outcome in pickle.loads(file.read_bytes()).items():
            outcomes.setdefault(row, Outcome()).merge(outcome)
    return outcomes


def is_selection(config: pytest.Config) -> bool:
    """Whether an option left tests out: then a row may have run through one door alone."""
    return any(config.getoption(name, None) for name in ("keyword", "markexpr", "deselect", "lf"))


def is_complete(outcomes: Mapping[str, Outcome]) -> bool:
    """Whether every row that has a test ran."""
    return all(name in ABSENT or (name in outcomes and outcomes[name].has_run) for name in ROWS)


def render(outcomes: Mapping[str, Outcome]) -> str:
    """The page. Neither dates nor machines, and in an order of its own: two runs differ
    in their figures alone."""
    parts = [_INTRODUCTION.format(summary=_summary(outcomes))]
    for letter, title in GROUPS.items():
        names = [name for name in ROWS if name[0] == letter and name not in ABSENT]
        lines = (_line(name, outcomes.get(name, Outcome())) for name in names)
        parts.append(
            _table(
                f"{title} ({letter})", ["Row", "What happens", "Verdict", "Doors", "Figures"], lines
            )
        )
    partly = ([name, reason] for name, reason in PARTLY.items())
    absent = ([name, ROWS[name], reason] for name, reason in ABSENT.items())
    if PARTLY:
        parts.append(_table("What rows leave out", ["Row", "What is missing, and why"], partly))
    parts.append(
        _table("Rows without a test", ["Row", "What happens", "Why there is none"], absent)
    )
    return "\n".join(parts)


def _summary(outcomes: Mapping[str, Outcome]) -> str:
    present = [name for name in ROWS if name not in ABSENT]
    held = [name for name in present if name in outcomes and not outcomes[name].failed]
    probed = {name: max(outcome.probe_ms) for name, outcome in outcomes.items() if outcome.probe_ms}
    text = (
        f"{len(held)} of {len(present)} rows held; {len(ABSENT)} more wait for parts "
        "that do not exist yet."
    )
    if probed:
        worst = max(probed, key=lambda name: (probed[name], name))
        text += (
            f" The probe's slowest row was {worst}: 99 of 100 answers within "
            f"{rounded(probed[worst])} ms."
        )
    return text


def _line(name: str, outcome: Outcome) -> list[str]:
    figures = [_figure(*key, values) for key, values in sorted(outcome.figures.items())]
    if outcome.probe_ms:
        figures.append(f"probe {rounded(max(outcome.probe_ms))} ms")
    return [
        name,
        ROWS[name],
        verdict(name, outcome),
        " and ".join(sorted(outcome.doors)),
        "; ".join(figures),
    ]


def verdict(name: str, outcome: Outcome) -> str:
    """In a word."""
    if outcome.failed:
        return "**failed**"
    if not outcome.has_run:
        return "not run"
    return "held in part" if name in PARTLY else "held"


def _figure(name: str, unit: str, values: Iterable[float]) -> str:
    low, high = (rounded(value) for value in (min(values), max(values)))
    return f"{name} {low if low == high else f'{low} to {high}'} {unit}".rstrip().replace("|", "/")


def rounded(value: float) -> str:
    """Two digits that count, so that runs differ little; whole numbers of up to four
    digits stay as they are."""
    if value == int(value) and abs(value) < 10_000:
        return str(int(value))
    text = f"{float(f'{value:.2g}'):,f}"
    return text.rstrip("0").rstrip(".")


def _table(title: str, head: list[str], lines: Iterable[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(row)} |" for row in rows), ""])


_INTRODUCTION = """\
# Reliability

<!-- Written by the tests (tests/reliability/report.py): edits are lost. -->

What the gateway does when clients, upstreams, the machine or an attacker misbehave. Every row is a test with the row's
id in its name, with real parts: gunicorn with the shipped configuration and one worker, or several if the row is
about them, nginx with the shipped site in front of it, and an upstream made of bare sockets that fails as scripted and
records its requests. Rows use both nginx and the gateway directly, unless only one of the two makes sense.

{summary}

At the end of every row:

1. a small request of another team, sent five times a second through the door of the row, has always got its complete
   answer, 99 of 100 within 250 ms;
2. within 2 seconds, no request is in flight, none holds a slot, and none waits for one;
3. the workers have no more descriptors and greenlets than before, and the coordinator has not grown by more than 8 MiB;
4. the logs have no traceback, and no status of 500 or more that the row does not expect;
5. every admitted request has one line in the access log, with its result;
6. every error has the format of the API that was called, also those that nginx sends.

The probe's figure is the time within which 99 of 100 of its answers arrived during the row (the slowest, if there were
fewer than a hundred), without those that the machine itself delayed.

`make long` runs all rows through both doors and writes this page. `make test` runs all rows too, through nginx only
where nginx decides the result. `.venv/bin/python -m pytest tests/reliability -k c1_` runs one row.
"""
