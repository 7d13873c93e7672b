"""One document in a real Redis: lost races, time limits, leases, and messages."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
import redis

from ollama_proxy.coordination import redis_store
from ollama_proxy.coordination.redis_store import RedisStore, connect_redis
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.redis_server import RedisServer

store = function_fixture(
    lambda redis_server: closing(RedisStore(connect_redis(redis_server.url), "test:", 1))
)


def add_one(text: bytes | None, now: float) -> tuple[bytes, None]:
    return str(int(text or 0) + 1).encode(), None


def test_changes_of_several_writers_are_all_applied(
    store: RedisStore, redis_server: RedisServer
) -> None:
    def work() -> None:
        for _ in range(50):
            store.change(add_one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    seen: list[bytes | None] = []
    store.change(lambda text, now: (seen.append(text), (text or b"", None))[1])
    assert seen == [b"200"] and store.lost_races > 0


def test_change_gets_the_time_of_redis_and_is_not_written_if_nothing_changes(
    store: RedisStore, redis_server: RedisServer
) -> None:
    times: list[float] = []

    def keep(text: bytes | None, now: float) -> tuple[bytes, None]:
        times.append(now)
        if text:
            # A write would be a lost race.
            redis_server.ask("SET", "test:state:1", "other")
        return text or b"first", None

    store.change(keep)
    store.change(keep)
    assert abs(times[0] - time.time()) < 60 and times[0] < times[1] < times[0] + 10
    assert (len(times), store.lost_races) == (2, 0)


def test_change_that_always_loses_gives_up(
    store: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "CHANGE_TIMEOUT_S", 0.2)

    def lose(text: bytes | None, now: float) -> tuple[bytes, None]:
        redis_server.ask("SET", "test:state:1", str(time.monotonic()))
        return b"mine", None

    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        store.change(lose)
    assert time.monotonic() - began < 20 and store.lost_races > 1
    assert redis_server.ask("STRLEN", "test:state:1") != ":4"


def test_error_in_a_change_leaves_no_connection_behind_that_watches(
    store: RedisStore, redis_server: RedisServer
) -> None:
    def fail(text: bytes | None, now: float) -> tuple[bytes, None]:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        store.change(fail)
    redis_server.ask("SET", "test:state:1", "5")
    store.change(add_one)
    assert store.lost_races == 0


def test_paused_redis_is_given_up_after_a_second(
    store: RedisStore, redis_server: RedisServer
) -> None:
    store.change(add_one)
    redis_server.pause()
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        store.change(add_one)
    assert time.monotonic() - began < 20
    redis_server.resume()
    store.change(add_one)


def test_leases_end_by_themselves_or_at_once(store: RedisStore) -> None:
    store.renew_lease("short", 0.1)
    store.renew_lease("long", 60)
    store.renew_lease("left", 60)
    store.end_lease("left")
    names = ["short", "long", "left", "unknown"]
    wait_until(lambda: store.find_dead(names) == {"short", "left", "unknown"}, 2)
    assert store.find_dead([]) == set()


def test_message_arrives_with_the_change_that_it_tells_of(store: RedisStore) -> None:
    received: list[bytes] = []
    ended = threading.Event()
    listener = threading.Thread(
        target=store.listen, args=(received.append, lambda: not ended.is_set())
    )
    listener.start()

    def tell() -> bool:
        store.change(lambda text, now: (str(now).encode(), b"told"))
        return bool(received)

    wait_until(tell, 5)
    ended.set()
    listener.join(5)
    assert set(received) == {b"told"}


@pytest.mark.parametrize(
    "url", ["redis://:secret/word@127.0.0.1:6379/0", "http://:secret@127.0.0.1"]
)
def test_invalid_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="^the address of Redis is invalid$") as caught:
        connect_redis(url)
    assert caught.value.__cause__ is None
