"""Times as the tables have them: whole milliseconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """The time now, as the tables have it."""
    return time.time_ns() // 1_000_000


def format_ms(ms: int) -> str:
    """A time of the tables, as answers have it."""
    return (
        datetime.fromtimestamp(ms / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
