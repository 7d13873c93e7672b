"""Cost that is not intended does not creep in: the calls of a request, and the CPU time of metrics
and records."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from benchmarks import metrics, records
from benchmarks.calls import COUNTED, PYTHON, TOLERANCE, count_calls, read_stored

RENEW = "If that is meant, store the new figures: .venv/bin/python -m benchmarks.calls --write"

#: Most repetitions of what is measured in microseconds.
ROUNDS = 5


@pytest.mark.slow
def test_a_request_takes_as_many_calls_as_stored() -> None:
    if not platform.python_version().startswith(PYTHON + "."):
        pytest.skip(f"the stored figures are those of Python {PYTHON}")
    counted, stored = count_calls(), read_stored()
    change = {work: 100 * (counted[work] / stored[work] - 1) for work in COUNTED}
    wrong = [
        f"{work}: {counted[work]} calls, stored {stored[work]}: {change[work]:+.1f} %. {RENEW}"
        for work in COUNTED
        if abs(change[work]) > 100 * TOLERANCE
    ]
    assert not wrong, "\n".join(wrong)


# The cheapest round counts, as noise only ever adds: one within the budget is enough.


@pytest.mark.slow
def test_counting_a_request_is_within_its_budget(tmp_path: Path) -> None:
    def measure(number: int) -> float:
        directory = tmp_path / str(number)
        directory.mkdir()
        return metrics.measure(directory, rounds=50)[metrics.RATE]

    assert any(0 < measure(number) <= metrics.BUDGET_US for number in range(ROUNDS))


@pytest.mark.slow
def test_recording_a_request_is_within_its_budget(tmp_path: Path) -> None:
    assert any(
        0
        < records.measure(tmp_path / str(number), rounds=300)["added by records"]
        <= records.BUDGET_US
        for number in range(ROUNDS)
    )
