"""How many exchanges of a token or user run at a time, in this process or on all
machines with the same Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

#: The lease of a machine; while it exists, what the machine runs is counted.
LEASE = "ollama-proxy:lease:"

#: How long Redis keeps counts that nobody changes, in seconds; longer than any exchange lasts.
KEPT_S = 86_400

#: Higher than any count, and a number that Lua has exactly.
NO_LIMIT = 1 << 53

#: Adds up the counts of the machines that have a lease, and stores that of this machine if the sum
#: is within the limit. A command that Redis executes only after its time has run out must not undo
#: newer ones, hence the version.
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


@dataclass(slots=True, eq=False)
class MemoryConcurrency:
    """Counts the exchanges of this process, by a key such as "token:web-team"."""

    #: The ids of those that run.
    running: dict[str, set[str]] = field(default_factory=dict)

    def count(self, key: str) -> int:
        """How many run."""
        return len(self.running.get(key, ()))

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        """Counts an exchange unless `limit` are counted already."""
        if self.count(key) >= limit:
            return False
        self.running.setdefault(key, set()).add(exchange_id)
        return True

    def leave(self, key: str, exchange_id: str) -> None:
        """Counts an exchange no longer; others are ignored."""
        running = self.running.get(key, set())
        running.discard(exchange_id)
        if not running:
            self.running.pop(key, None)


class RedisConcurrency:
    """Counts the exchanges of all machines that have a lease, as MemoryConcurrency does those of
    a process. Errors of Redis are raised; what runs here stays known, and each later change
    corrects what Redis has."""

    def __init__(self, client: Redis, machine: str) -> None:
        self._here = MemoryConcurrency()
        self._machine = machine
        self._count: Any = client.register_script(_COUNT)
        # Also newer than what this machine stored before it was restarted.
        self._version = time.time_ns() // 1000

    def count(self, key: str) -> int:
        """See MemoryConcurrency."""
        return self._store(key, -1)

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        """See MemoryConcurrency."""
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
        """See MemoryConcurrency."""
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


Concurrency = MemoryConcurrency | RedisConcurrency
