"""The counters of limits that several machines share, in Redis."""

from __future__ import annotations

import redis
from limits.storage import RedisStorage

#: Numbers of Lua have no more than 53 bits, which is enough for a cost of 9 million;
#: `tostring` would round them.
_RAISE_TO = """
local missing = tonumber(ARGV[1]) - tonumber(redis.call("GET", KEYS[1]) or "0")
if missing > 0 then
    redis.call("INCRBY", KEYS[1], string.format("%.0f", missing))
    if redis.call("TTL", KEYS[1]) < 0 then
        redis.call("EXPIRE", KEYS[1], ARGV[2])
    end
end
"""


class CounterStorage(RedisStorage):
    """The counters of all machines; see MemoryStorage."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__("redis://", connection_pool=client.connection_pool)
        self._client = client

    def raise_to(self, key: str, expiry: int, amount: int) -> None:
        """Makes a counter at least so high, in one step: several machines may do that at once."""
        self._client.eval(_RAISE_TO, 1, self.prefixed_key(key), amount, expiry)
