"""The CPU time of metrics and records stays within its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import metrics, records

#: Most repetitions of what is measured in microseconds.
ROUNDS = 5


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
