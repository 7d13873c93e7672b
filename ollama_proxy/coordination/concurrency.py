"""How many exchanges of a token or user run at the same time: here, or on all machines that share a Redis."""

from __future__ import annotations

from typing import Protocol


class Concurrency(Protocol):
    """Counts exchanges by key, such as "token:web-team"."""

    def count(self, key: str) -> int:
        """How many run."""

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        """Counts an exchange unless `limit` are counted already."""

    def leave(self, key: str, exchange_id: str) -> None:
        """Counts an exchange no longer; others are ignored."""


class MemoryConcurrency:
    """Counts the exchanges of this process."""

    def __init__(self) -> None:
        self._running: dict[str, set[str]] = {}

    def count(self, key: str) -> int:
        """See `Concurrency`."""
        return len(self._running.get(key, ()))

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        """See `Concurrency`."""
        if self.count(key) >= limit:
            return False
        self._running.setdefault(key, set()).add(exchange_id)
        return True

    def leave(self, key: str, exchange_id: str) -> None:
        """See `Concurrency`."""
        running = self._running.get(key, set())
        running.discard(exchange_id)
        if not running:
            self._running.pop(key, None)
