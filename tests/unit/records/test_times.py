"""Times of the tables."""

from __future__ import annotations

import time

from ollama_proxy.records.times import format_ms, now_ms


def test_times_are_shown_in_utc() -> None:
    assert format_ms(1_800_000_000_001) == "2027-01-15T08:00:00.001Z"


def test_now_is_in_milliseconds() -> None:
    assert abs(now_ms() - time.time() * 1000) < 1000
