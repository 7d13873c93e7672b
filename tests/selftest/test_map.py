"""tests/README.md lists every suite, every tool and every id."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reliability.rows import GROUPS

TESTS = Path(__file__).resolve().parents[1]
MAP = (TESTS / "README.md").read_text(encoding="utf-8")
CODE = [path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")]
CASES = [path.read_text(encoding="utf-8") for path in (TESTS / "golden").rglob("case.json")]


def section(title: str) -> str:
    """The text between a heading and the next one."""
    return MAP.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The first column of the tables in a text, without their heads."""
    return re.findall(r"^\| (?!directory|in |id |---)(.+?) \|", text, re.MULTILINE)


def ids_in(texts: list[str]) -> set[str]:
    """Ids of edge cases, in the name of a test (`test_G07_...`) or before the reason for a
    golden case (`G07: ...`)."""
    return {
        found for text in texts for found in re.findall(r"(?:def test_|\")(G\d\d)(?:_|: )", text)
    }


def test_every_directory_is_in_the_map() -> None:
    there = {
        f"`{path.name}/`"
        for path in TESTS.iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert there == set(first_cells(section("Suites")))


def test_every_tool_is_in_the_map() -> None:
    listed = {
        name for cell in first_cells(section("Tools")) for name in re.findall(r"`(\w+\.py)`", cell)
    }
    assert listed == {path.name for path in (TESTS / "rig").glob("*.py")}


def test_files_that_the_map_names_exist() -> None:
    named = set(re.findall(r"`((?:\w+/)+[\w*]+\.\w+)`", section("Suites")))
    assert named
    assert {
        path for path in named if not any(TESTS.glob(path)) and not any(TESTS.parent.glob(path))
    } == set()


def test_every_edge_case_is_explained_and_tested() -> None:
    assert set(re.findall(r"^\| (G\d\d) \|", section("Ids"), re.MULTILINE)) == ids_in(CODE + CASES)


def test_every_group_of_rows_is_explained() -> None:
    [cell] = [cell for cell in first_cells(section("Ids")) if cell.startswith("`C1`")]
    assert set(re.findall(r"`([A-Z])\d+`", cell)) == GROUPS.keys()


def test_the_range_of_systems_is_that_of_the_acceptance_tests() -> None:
    systems = sorted({found for text in CODE for found in re.findall(r"def test_s(\d)_\d\d", text)})
    assert f"({systems[0]} to {systems[-1]})" in section("Ids")
