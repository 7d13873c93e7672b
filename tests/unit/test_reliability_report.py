"""docs/reliability.md says what the tests found, and is written only when they all ran."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal, cast

import pytest

from tests.reliability import report
from tests.reliability.report import Outcome, Reliability, is_complete, render, rounded, row_of
from tests.reliability.rows import ABSENT, GROUPS, PARTLY, ROWS

PRESENT = [name for name in ROWS if name not in ABSENT]


def phase(
    name: str,
    when: Literal["setup", "call", "teardown"] = "teardown",
    outcome: Literal["passed", "failed", "skipped"] = "passed",
    properties: Any = (),
    path: str = "tests/reliability/test_clients.py",
) -> pytest.TestReport:
    """What pytest reports of one phase of a test."""
    return pytest.TestReport(
        f"{path}::{name}",
        (path, 1, name),
        {},
        outcome,
        None,
        when,
        user_properties=list(properties),
    )


def whole_table() -> dict[str, Outcome]:
    """Every row held, through both doors."""
    return {name: Outcome(passed=2, doors={"nginx", "gateway"}, probe_ms=[4.0]) for name in PRESENT}


def end(plugin: Reliability, options: Mapping[str, Any] = MappingProxyType({})) -> None:
    """The session is over."""
    told = SimpleNamespace(getoption=options.get)
    plugin.pytest_sessionfinish(cast(pytest.Session, SimpleNamespace(config=told)))


def line_of(page: str, row: str) -> str:
    """A row's line in the page."""
    return next(line for line in page.splitlines() if line.startswith(f"| {row} |"))


def test_row_is_told_by_the_name_of_the_test() -> None:
    rows = {
        "test_c1_client_leaves[gateway]": "C1",
        "test_u17_idle": "U17",
        "test_x1_y": None,
        "test_c1": None,
    }
    assert {name: row_of(name) for name in rows} == rows


def test_outcome_is_of_all_tests_of_a_row() -> None:
    plugin = Reliability()
    measured = [("door", "nginx"), ("figure", ("left", 12.3, "ms")), ("probe", (8.2, 9.9))]
    plugin.pytest_runtest_logreport(phase("test_c1_a[nginx]", "call", properties=measured[:2]))
    plugin.pytest_runtest_logreport(phase("test_c1_a[nginx]", "teardown", properties=measured))
    plugin.pytest_runtest_logreport(phase("test_c1_a[gateway]", "call"))
    plugin.pytest_runtest_logreport(
        phase("test_c1_a[gateway]", properties=[("figure", ["left", 30, "ms"])])
    )
    assert plugin.outcomes == {
        "C1": Outcome(False, 2, {"nginx"}, {("left", "ms"): [12.3, 30.0]}, [8.2])
    }


@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_failure_in_any_phase_is_the_rows(when: Literal["setup", "call", "teardown"]) -> None:
    plugin = Reliability()
    plugin.pytest_runtest_logreport(phase("test_c1_a[gateway]", "call"))
    plugin.pytest_runtest_logreport(phase("test_c1_a[nginx]", when, "failed"))
    assert report.verdict("C1", plugin.outcomes["C1"]) == "**failed**"


def test_tests_elsewhere_are_no_rows() -> None:
    plugin = Reliability()
    plugin.pytest_runtest_logreport(phase("test_c1_a", "call", path="tests/unit/test_x.py"))
    assert not plugin.outcomes


def test_skipped_row_has_not_run() -> None:
    plugin = Reliability()
    plugin.pytest_runtest_logreport(phase("test_c1_a", "setup", "skipped"))
    plugin.pytest_runtest_logreport(phase("test_c1_a", "teardown"))
    assert not is_complete(whole_table() | plugin.outcomes)


def test_page_is_written_when_every_row_ran(tmp_path: Path) -> None:
    plugin = Reliability(tmp_path / "page.md", both_doors=True)
    plugin.outcomes = whole_table()
    end(plugin)
    assert (tmp_path / "page.md").read_text() == render(whole_table())


def test_page_stays_as_it_is_when_rows_ran_through_one_door(tmp_path: Path) -> None:
    plugin = Reliability(tmp_path / "page.md", both_doors=False)
    plugin.outcomes = whole_table()
    end(plugin)
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize("missing", [PRESENT[0], PRESENT[-1]])
def test_page_stays_as_it_is_when_a_row_did_not_run(tmp_path: Path, missing: str) -> None:
    plugin = Reliability(tmp_path / "page.md", both_doors=True)
    plugin.outcomes = whole_table()
    del plugin.outcomes[missing]
    end(plugin)
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("keyword", "gateway"),
        ("markexpr", "not slow"),
        ("deselect", ["tests/x.py::y"]),
        ("lf", True),
    ],
)
def test_page_stays_as_it_is_when_tests_were_left_out(
    tmp_path: Path, option: str, value: Any
) -> None:
    plugin = Reliability(tmp_path / "page.md", both_doors=True)
    plugin.outcomes = whole_table()
    end(plugin, {option: value})
    assert not (tmp_path / "page.md").exists()


def test_page_is_the_same_in_whatever_order_the_tests_ran() -> None:
    figures = [((f"figure {number}", "ms"), [number]) for number in range(20)]

    def measured(seed: int) -> dict[str, Outcome]:
        table, chance = list(whole_table().items()), random.Random(seed)
        chance.shuffle(table)
        chance.shuffle(figures)
        return dict(table) | {"C2": Outcome(False, 1, {"gateway"}, dict(figures), [4.0])}

    assert len({render(measured(seed)) for seed in range(5)}) == 1


def test_of_several_processes_the_last_one_writes_the_page(tmp_path: Path) -> None:
    plugins = [Reliability(tmp_path / "page.md", both_doors=True) for _ in range(3)]
    for number, (row, outcome) in enumerate(whole_table().items()):
        plugins[number % 3].outcomes[row] = outcome
    plugins[0].outcomes["C1"] = Outcome(False, 1, {"nginx"}, {("left", "ms"): [1.0]}, [2.0])
    plugins[1].outcomes["C1"] = Outcome(False, 1, {"gateway"}, {("left", "ms"): [3.0]}, [5.0])
    plugins[2].outcomes.pop("C1", None)
    for plugin in plugins:
        assert not (tmp_path / "page.md").exists()
        end(plugin, {"taken": tmp_path})
    line = line_of((tmp_path / "page.md").read_text(), "C1")
    assert line.endswith("| held | gateway and nginx | left 1 to 3 ms; probe 5 ms |")


def test_page_has_every_row_once_with_its_verdict() -> None:
    page = render(whole_table())
    for name in PRESENT:
        verdict = "held in part" if name in PARTLY else "held"
        assert f"| {name} | {ROWS[name]} | {verdict} | gateway and nginx | probe 4 ms |" in page
    for name, reason in ABSENT.items():
        assert f"| {name} | {ROWS[name]} | {reason} |" in page
    for name, reason in PARTLY.items():
        assert f"| {name} | {reason} |" in page
    assert [title in page for title in GROUPS.values()] == [True] * len(GROUPS)
    assert f"{len(PRESENT)} of {len(PRESENT)} rows held" in page


def test_figures_stand_beside_their_row_and_the_worst_probe_on_top() -> None:
    outcomes = whole_table()
    outcomes["C2"] = Outcome(
        True, 1, {"gateway"}, {("left", "ms"): [12.34, 9.0], ("sent", "KiB"): [64]}, [3, 97.7]
    )
    page = render(outcomes)
    assert line_of(page, "C2").endswith(
        "| **failed** | gateway | left 9 to 12 ms; sent 64 KiB; probe 98 ms |"
    )
    assert f"{len(PRESENT) - 1} of {len(PRESENT)} rows held" in page
    assert "slowest row was C2: 99 of 100 answers within 98 ms" in page


def test_figures_are_rounded_so_that_they_change_little() -> None:
    texts = {
        0: "0",
        0.0312: "0.031",
        1.26: "1.3",
        97.7: "98",
        250: "250",
        2512.0: "2512",
        123456.7: "120,000",
    }
    assert {value: rounded(value) for value in texts} == texts


def test_figures_belong_to_the_test_that_runs() -> None:
    item = cast(pytest.Item, SimpleNamespace(user_properties=[]))
    report.note_figure("before", 1, "ms")
    with report.noting(item):
        report.note_figure("left", 2, "ms")
    report.note_figure("after", 3, "ms")
    assert item.user_properties == [("figure", ("left", 2, "ms"))]
