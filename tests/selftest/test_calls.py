"""A request takes as many calls of functions as the stored figures say: cost that nobody
means does not creep in."""

from __future__ import annotations

import platform

import pytest

from benchmarks.calls import COUNTED, PYTHON, TOLERANCE, count_calls, read_stored

RENEW = "If that is meant, store the new figures: .venv/bin/python -m benchmarks.calls --write"


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    if not platform.python_version().startswith(PYTHON + "."):
        pytest.skip(f"the stored figures are those of Python {PYTHON}")
    return count_calls()


@pytest.mark.slow
@pytest.mark.parametrize("work", COUNTED)
def test_a_request_takes_as_many_calls_as_stored(counted: dict[str, int], work: str) -> None:
    stored = read_stored()[work]
    change = counted[work] / stored - 1
    assert abs(change) <= TOLERANCE, (
        f"{work}: {counted[work]} calls, stored {stored}: {100 * change:+.1f} %. {RENEW}"
    )
