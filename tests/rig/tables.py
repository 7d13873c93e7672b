"""A table in one test: every row is checked, and the failure lists all wrong rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def check_rows(rows: Iterable[tuple[Any, ...]], check: Callable[..., None]) -> None:
    """Call ``check(*row)`` for every row. Raises AssertionError with every row for which it
    failed, in whatever way, and if there is no row."""
    wrong, count = [], 0
    for row in rows:
        count += 1
        try:
            check(*row)
        except (AssertionError, pytest.fail.Exception) as error:
            wrong.append(f"{repr(row)[:300]}: {error}")
        except Exception as error:  # what the program raised unexpectedly
            wrong.append(f"{repr(row)[:300]}: {error!r}")
    assert count, "the table is empty"
    assert not wrong, "\n".join([f"{len(wrong)} of {count} rows are wrong:", *wrong])
