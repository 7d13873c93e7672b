"""The table is complete: every row has its one test, or a reason why not."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from tests.reliability.report import row_of
from tests.reliability.rows import ABSENT, GROUPS, PARTLY, ROWS

SIZES = {"C": 17, "U": 33, "P": 27, "B": 26, "S": 44}
LONGEST = 90


def row_tests() -> list[str]:
    """The names of all tests in this directory that belong to a row."""
    found = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        functions = (
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
        )
        found += [function.name for function in functions if row_of(function.name)]
    return found


def test_the_table_has_every_row_once_and_in_order() -> None:
    assert list(ROWS) == [
        f"{group}{number}" for group, size in SIZES.items() for number in range(1, size + 1)
    ]
    assert list(GROUPS) == list(SIZES)


def test_texts_are_one_line_for_a_table() -> None:
    texts = [*ROWS.values(), *ABSENT.values(), *PARTLY.values()]
    wrong = [text for text in texts if not text or re.search(r"[\n|]|\.$", text)]
    assert not wrong, "\n".join(wrong)


def test_what_happens_is_said_in_a_few_words_each_in_its_own() -> None:
    assert all(len(text) <= LONGEST for text in ROWS.values())
    assert len(set(ROWS.values())) == len(ROWS)


def test_excuses_are_for_rows_of_the_table_in_its_order() -> None:
    assert list(ABSENT) == [name for name in ROWS if name in ABSENT]
    assert list(PARTLY) == [name for name in ROWS if name in PARTLY]
    assert not ABSENT.keys() & PARTLY.keys()


def test_every_row_has_exactly_one_test_or_a_reason_why_not() -> None:
    tests = Counter(row_of(name) for name in row_tests())
    wrong = {name: tests[name] for name in ROWS if tests[name] != (name not in ABSENT)}
    assert not wrong, (
        f"tests by row, where it should be one, or none for those that are absent: {wrong}"
    )
    assert tests.keys() <= ROWS.keys()
