"""Cost that is not intended does not creep in: a request takes as many calls as before."""

from __future__ import annotations

import platform

import pytest

from benchmarks.calls import COUNTED, PYTHON, TOLERANCE, count_calls, read_stored

RENEW = "If that is meant, store the new figures: .venv/bin/python -m benchmarks.calls --write"


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
