"""`rig/tables.py` checks every row and reports every wrong one."""

from __future__ import annotations

import pytest

from tests.rig.tables import check_rows


def is_even(number: int) -> None:
    assert number % 2 == 0, "odd"


def test_every_wrong_row_is_listed() -> None:
    with pytest.raises(AssertionError) as failure:
        check_rows([(1,), (2,), (3,)], is_even)
    assert str(failure.value).startswith("2 of 3 rows are wrong:\n(1,): odd")
    assert "\n(3,): odd" in str(failure.value)
    check_rows([(2,), (4,)], is_even)


def test_a_row_fails_in_whatever_way() -> None:
    def divide(number: int) -> None:
        with pytest.raises(ZeroDivisionError):
            1 // number  # noqa: B018
        assert [][number]

    with pytest.raises(AssertionError) as failure:
        check_rows([(0,), (1,)], divide)
    assert "(0,): IndexError(" in str(failure.value)
    assert "(1,): DID NOT RAISE" in str(failure.value)


def test_an_empty_table_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="empty"):
        check_rows([], is_even)
