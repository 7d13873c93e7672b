"""Lines of the spool as rows of the database, and their sums by hour. Pure:
values in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any

import orjson

from ollama_proxy.records.tables import GOOD_STATES

Row = dict[str, Any]

#: Longest text of a column, in bytes: PostgreSQL's index entries have at most 2,704, and that
#: of the sums has five.
MAX_TEXT_BYTES = 500

#: Longest `attempts`, in bytes.
MAX_ATTEMPTS_BYTES = 64_000

#: Every database, and every JSON parser, can represent whole numbers up to this one.
MAX_NUMBER = 1 << 53

_TEXTS = (
    "id",
    "token",
    "user",
    "trusted_user",
    "dialect",
    "route",
    "method",
    "model",
    "target",
    "upstream",
    "error",
)
_NUMBERS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_AMOUNTS = ("queue_ms", "load_ms", "first_byte_ms", "total_ms", "gpu_ms", "cost")

#: A quarter of an hour, in milliseconds: time zones change their offset at no other instants.
_QUARTER_MS, _HOUR_MS = 900_000, 3_600_000

#: The sums, by name of their column; `gpu_seconds` is made of `gpu_ms`.
_SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "cost")


def usage_row(record: dict[str, Any]) -> Row:
    """The row of `usage` of an end line. Raises KeyError, TypeError or ValueError if it is none."""
    row: Row = {name: _read_text(record.get(name)) for name in _TEXTS}
    row["row_id"] = read_row_id(record)
    row["started_at"] = read_started_at(record)
    row["state"] = _read_text(record["state"])
    row["status"] = min(_read_number(record.get("status")) or 0, 999)
    row["bytes"] = _read_number(record.get("bytes")) or 0
    for name in _NUMBERS:
        row[name] = _read_number(record.get(name))
    for name in _AMOUNTS:
        amount = record.get(name)
        row[name] = None if amount is None else float(amount)
    for name in ("stream", "estimated", "is_known_model"):
        row[name] = bool(record.get(name))
    attempts = orjson.dumps(record.get("attempts") or [])
    row["attempts"] = attempts.decode() if len(attempts) <= MAX_ATTEMPTS_BYTES else "[]"
    return row


def lost_row(begin: dict[str, Any]) -> Row:
    """The row of an exchange whose worker was killed: nothing is known of it but its beginning."""
    return usage_row({**begin, "state": "lost", "error": "worker_lost"})


def read_row_id(line: dict[str, Any]) -> str:
    """The id of the row that a begin line or an end line is about. Raises
    KeyError or ValueError."""
    row_id = line["row_id"]
    if (
        not isinstance(row_id, str)
        or not row_id.isascii()
        or not row_id.isalnum()
        or len(row_id) > 64
    ):
        raise ValueError("no row id")
    return row_id


def read_started_at(line: dict[str, Any]) -> int:
    """When the exchange of a line began, in milliseconds since 1970. Raises KeyError,
    TypeError or ValueError."""
    return min(max(int(line["started_at"] * 1000), 0), MAX_NUMBER)


def _read_text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("no text")
    # PostgreSQL has no text with this character.
    text = value.replace("\0", "")
    return (
        text
        if len(text) <= MAX_TEXT_BYTES // 4
        else text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
    )


def _read_number(value: Any) -> int | None:
    return None if value is None else min(max(int(value), 0), MAX_NUMBER)


@dataclass(slots=True, eq=False)
class HourlySums:
    """Sums of rows, as rows of `usage_hourly`."""

    _timezone: tzinfo
    #: By the quarter of an hour: the offset of the time zone from UTC then, in milliseconds.
    _offsets: dict[int, int] = field(default_factory=dict)

    def hour_of(self, started_at: int) -> int:
        """The instant in which the hour of this instant began in the time zone;
        both in milliseconds."""
        quarter = started_at // _QUARTER_MS
        offset = self._offsets.get(quarter)
        if offset is None:
            if len(self._offsets) >= 1000:
                self._offsets.clear()
            moment = datetime.fromtimestamp(
                min(quarter * _QUARTER_MS / 1000, 2e11), UTC
            ).astimezone(self._timezone)
            shift = moment.utcoffset()
            offset = self._offsets[quarter] = int(shift.total_seconds() * 1000) if shift else 0
        return started_at - (started_at + offset) % _HOUR_MS

    def add_up(self, rows: Iterable[Row]) -> list[Row]:
        """The sums, in the order of their keys: importers that add to the same sums never wait for
        each other in a circle."""
        sums: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            model = row["model"] if row["is_known_model"] else ""
            whose = (row["token"], row["trusted_user"], model, row["upstream"], row["dialect"])
            key = (self.hour_of(row["started_at"]), *whose)
            entry = sums.get(key)
            if entry is None:
                names = ("hour", "token", "user", "model", "upstream", "dialect")
                entry = sums[key] = dict(zip(names, key, strict=True))
                entry.update(dict.fromkeys(_SUMMED, 0), requests=0, errors=0, gpu_seconds=0.0)
            entry["requests"] += 1
            entry["errors"] += row["state"] not in GOOD_STATES
            entry["gpu_seconds"] += (row["gpu_ms"] or 0.0) / 1000
            for name in _SUMMED:
                entry[name] += row[name] or 0
        return [sums[key] for key in sorted(sums)]
