"""Values that are nested deep: JSON is read at more levels than it is written at."""

from __future__ import annotations

from typing import Any


def nested(levels: int) -> dict[str, Any]:
    """An object of so many levels."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value
