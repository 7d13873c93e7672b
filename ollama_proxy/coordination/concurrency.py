"""How many exchanges of a token or user run at a time, in this process or on all machines with the same Redis."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from redis import Redis

#: The lease of a machine; while it exists, what the machine runs is counted.
LEASE = "ollama-proxy:lease:"

#: How long Redis keeps counts that nobody changes, in seconds; longer than any exchange lasts.
KEPT_S = 86_400

#: Higher than any count, and a number that Lua has exactly.
NO_LIMIT = 1 << 53

#: Adds up the counts of the machines that have a lease, and stores that of this machine if the sum is within the limit.
#: A command that Redis executes only after its time has run out must not undo newer ones, hence the version.
_COUNT = """
local lease, machine, own, version, limit, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local total, is_newer = tonumber(own), true
local counts = redis.call('hgetall', KEYS[1])
for i = 1, #counts, 2 do
    local count, stored = string.match(counts[i + 1], '(%d+) (%d+)')
    if counts[i] == machine then
        is_newer = tonumber(version) > tonumber(stored)
    elseif redis.call('exists', lease .. counts[i]) == 1 then
        total = total + tonumber(count)
    else
        redis.call('hdel', KEYS[1], counts[i])
    end
end
if total <= limit and is_newer then
    redis.call('hset', KEYS[1], machine, own .. ' ' .. version)
    redis.call('expire', KEYS[1], kept)
end
return total
"""


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
        self.running: dict[str, set[str]] = {}

    def count(self, key: str) -> int:
        """See `Concurrency`."""
        return len(self.running.get(key, ()))

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        """See `Concurrency`."""
        if self.count(key) >= limit:
            return False
        self.running.setdefault(key, set()).add(exchange_id)
        return True

    def leave(self, key: str, exchange_id: str) -> None:
        """See `Concurrency`."""
        running = self.running.get(key, set())
        running.discard(exchange_id)
        if not running:
            self.running.pop(key, None)


class RedisConcurrency:
    """Counts the exchanges of all machines that have a lease. Errors of Redis are raised; what runs here stays known,
    and each later change corrects what Redis has."""

    def __init__(self, client: Redis, machine: str) -> None:
        self._here = MemoryConcurrency()
        self._machine = machine
        self._count: Any = client.register_script(_COUNT)
        # Also newer than what this machine stored before it was restarted.
        self._version = time.time_ns() // 1000

    def count(self, key: str) -> int:
        """See `Concurrency`."""
        return self._store(key, -1)

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        """See `Concurrency`."""
        self._here.enter(key, exchange_id, NO_LIMIT)
        try:
            total = self._store(key, limit)
        except BaseException:  # whatever ended it, the exchange does not run
            self._here.leave(key, exchange_id)
            raise
        if total > limit:
            self.leave(key, exchange_id)  # a request that came at the same time may have stored it
        return total <= limit

    def leave(self, key: str, exchange_id: str) -> None:
        """See `Concurrency`."""
        self._here.leave(key, exchange_id)
        self._store(key, NO_LIMIT)

    def announce(self) -> None:
        """Stores all counts again: for a Redis that was down or has lost them."""
        for key in list(self._here.running):
            self._store(key, NO_LIMIT)

    def _store(self, key: str, limit: int) -> int:
        self._version += 1
        own = self._here.count(key)
        args = [LEASE, self._machine, own, self._version, limit, KEPT_S]
        return int(self._count(keys=[f"ollama-proxy:concurrent:{key}"], args=args))
