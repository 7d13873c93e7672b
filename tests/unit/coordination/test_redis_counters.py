"""Counters that several machines share."""

from __future__ import annotations

import threading

from ollama_proxy.coordination.redis_counters import CounterStorage
from ollama_proxy.coordination.redis_store import connect_redis
from tests.rig.redis_server import RedisServer


def test_machines_that_raise_counters_at_once_do_not_double_them(shared_redis: RedisServer) -> None:
    storages = [CounterStorage(connect_redis(shared_redis.url)) for _ in range(8)]
    most = 9_007_199_254_740_991  # the largest whole number of Lua
    barrier = threading.Barrier(len(storages))

    def raise_all(storage: CounterStorage) -> None:
        barrier.wait()
        for number in range(50):
            storage.raise_to(f"counter{number}", 60, most)

    threads = [threading.Thread(target=raise_all, args=[storage]) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {storages[0].get(f"counter{number}") for number in range(50)} == {most}


def test_counter_that_is_raised_ends_with_its_period(shared_redis: RedisServer) -> None:
    client = connect_redis(shared_redis.url)
    storage = CounterStorage(client)
    storage.raise_to("new", 60, 7)
    storage.raise_to("new", 900, 8)
    storage.raise_to("new", 900, 5)
    assert storage.get("new") == 8
    assert 0 < int(client.ttl(storage.prefixed_key("new"))) <= 60  # type: ignore[arg-type]
