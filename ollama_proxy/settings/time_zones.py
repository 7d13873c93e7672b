"""Days and months as a time zone has them; a day has 23 to 25 hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo


def find_timezone(name: str) -> tzinfo:
    """The time zone of this name; UTC exists without a database, too. Raises
    ValueError if it is unknown."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"no time zone {name}") from error


def midnight_s(day: date, zone: tzinfo) -> float:
    """The beginning of a day, in seconds since 1970."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def next_period(first: date, unit: str) -> date:
    """The day after a day, or the first day of the month after that of a day;
    `unit`: "day" or "month"."""
    return (
        first + timedelta(days=1)
        if unit == "day"
        else (first.replace(day=1) + timedelta(days=31)).replace(day=1)
    )
