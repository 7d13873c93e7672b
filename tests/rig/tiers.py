"""What only `make long` runs; see tests/README.md."""

from __future__ import annotations

import os

import pytest

#: Whether this is `make long`.
LONG = bool(os.environ.get("LONG"))
LEFT_OUT = "left to `make long`"
#: Marks a test that `make test` leaves out.
in_long = pytest.mark.skipif(not LONG, reason=LEFT_OUT)
#: Marks a test that is about more than its database: `make long` runs it with both kinds.
on_postgresql = pytest.mark.parametrize(
    "records_url", ["sqlite", "postgresql"] if LONG else ["postgresql"], indirect=True
)


def allowed(promised: float) -> float:
    """The time that a test gives what is promised within this time: as long in `make long`, which
    has the machine for itself, and ten times as long elsewhere."""
    return promised if LONG else 10 * promised
