"""Exchanges of a token that run at the same time, here and on other machines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import RedisError

from ollama_proxy.coordination.concurrency import (
    LEASE,
    Concurrency,
    MemoryConcurrency,
    RedisConcurrency,
)
from tests.rig.redis_server import RedisServer

KEY = "token:a"


@pytest.fixture
def client(shared_redis: RedisServer) -> Iterator[Redis]:
    shared_redis.flush()
    with Redis.from_url(shared_redis.url, socket_timeout=0.2) as client:
        yield client


def join(client: Redis, machine: str) -> RedisConcurrency:
    """A machine with a lease."""
    client.set(f"{LEASE}{machine}", 1)
    return RedisConcurrency(client, machine)


@pytest.fixture(params=["memory", "redis"])
def concurrency(request: pytest.FixtureRequest) -> Concurrency:
    if request.param == "memory":
        return MemoryConcurrency()
    return join(request.getfixturevalue("client"), "here")


def test_no_more_run_than_the_limit_and_each_is_counted_once(concurrency: Concurrency) -> None:
    assert [concurrency.enter(KEY, name, 2) for name in ("one", "two", "three")] == [
        True,
        True,
        False,
    ]
    assert (concurrency.count(KEY), concurrency.count("token:b")) == (2, 0)
    for _ in range(2):
        concurrency.leave(KEY, "one")
    assert concurrency.count(KEY) == 1
    assert concurrency.enter(KEY, "three", 2)


def test_only_machines_with_a_lease_count(client: Redis) -> None:
    here, there = join(client, "here"), join(client, "there")
    assert here.enter(KEY, "one", 2) and there.enter(KEY, "two", 2)
    assert not here.enter(KEY, "three", 2)
    client.delete(f"{LEASE}there")
    assert here.count(KEY) == 1
    assert here.enter(KEY, "three", 2)
    client.set(f"{LEASE}there", 1)
    there.announce()  # it was only slow
    assert here.count(KEY) == 3


def test_restarted_machine_holds_nothing(client: Redis) -> None:
    assert join(client, "here").enter(KEY, "one", 1)
    again = join(client, "here")
    assert again.enter(KEY, "two", 1)
    assert join(client, "there").count(KEY) == 1


def test_redis_that_lost_its_data_learns_what_runs(
    client: Redis, shared_redis: RedisServer
) -> None:
    here, there = join(client, "here"), join(client, "there")
    assert here.enter(KEY, "one", 2)
    shared_redis.flush()
    join(client, "here")
    here.announce()
    assert there.count(KEY) == 1


def test_what_redis_executes_too_late_is_corrected(
    client: Redis, shared_redis: RedisServer
) -> None:
    here, there = join(client, "here"), join(client, "there")
    assert here.enter(KEY, "one", 9)
    shared_redis.pause()
    try:
        with pytest.raises(RedisError):
            here.enter(KEY, "two", 9)
        with pytest.raises(RedisError):
            here.leave(KEY, "one")
    finally:
        shared_redis.resume()
    assert here.enter(KEY, "three", 9)
    assert there.count(KEY) == 1


def test_older_count_does_not_replace_a_newer_one(client: Redis) -> None:
    here, there = join(client, "here"), join(client, "there")
    late = here._version + 1
    here.enter(KEY, "one", 9)
    here.enter(KEY, "two", 9)
    here._version = late - 1
    here.leave(KEY, "one")  # as if sent before
    assert there.count(KEY) == 2
