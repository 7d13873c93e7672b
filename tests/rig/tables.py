"""A table in one test: every row is checked, and the failure lists all wrong rows."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from _pytest.mark import ParameterSet


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


def each_row(
    names: str | Sequence[str], rows: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Check every row of a table in one test, as `check_rows` does. The parameters are those of
    `pytest.mark.parametrize`; fixtures are the same ones for all rows."""
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    sets = [
        each
        if isinstance(each, ParameterSet)
        else pytest.param(*(each if len(keys) > 1 else [each]))
        for each in rows
    ]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)
        left = [each for name, each in signature.parameters.items() if name not in keys]

        @functools.wraps(test)
        def run(*args: Any, **fixtures: Any) -> None:
            check_rows(
                (each.values for each in sets),
                lambda *row: test(*args, **fixtures, **dict(zip(keys, row, strict=True))),
            )

        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate
