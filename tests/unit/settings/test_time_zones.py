"""Days and months as a time zone has them."""

from __future__ import annotations

from datetime import UTC, date

import pytest

from ollama_proxy.settings.time_zones import find_timezone, midnight_s, next_period

HOUR_S = 3600


def test_utc_needs_no_database() -> None:
    assert find_timezone("UTC") is UTC


@pytest.mark.parametrize("name", ["Nowhere/Town", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no time zone {name}"):
        find_timezone(name)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 7, 1), 24)],
)
def test_a_day_has_as_many_hours_as_its_zone_gives_it(day: date, hours: int) -> None:
    berlin = find_timezone("Europe/Berlin")
    assert midnight_s(next_period(day, "day"), berlin) - midnight_s(day, berlin) == hours * HOUR_S


@pytest.mark.parametrize(
    ("day", "unit", "after"),
    [
        (date(2028, 2, 28), "day", date(2028, 2, 29)),
        (date(2026, 12, 31), "day", date(2027, 1, 1)),
        (date(2026, 12, 31), "month", date(2027, 1, 1)),
        (date(2026, 2, 1), "month", date(2026, 3, 1)),
    ],
)
def test_the_next_period(day: date, unit: str, after: date) -> None:
    assert next_period(day, unit) == after
