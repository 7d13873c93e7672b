"""The rig's Redis: it can be stopped in every way, and what it stored is gone when it should be."""

from __future__ import annotations

import time

import pytest

from tests.rig.redis_server import RedisServer


def test_redis_stores_nothing_beyond_its_end(redis_server: RedisServer) -> None:
    for end in (redis_server.kill, redis_server.stop):
        assert redis_server.ask("SET", "key", "value") == "+OK"
        end()
        assert not redis_server.is_answering()
        redis_server.start()
        assert redis_server.ask("EXISTS", "key") == ":0"


def test_paused_redis_takes_connections_and_does_not_answer(redis_server: RedisServer) -> None:
    redis_server.ask("SET", "key", "value")
    redis_server.pause()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        redis_server.ask("PING", timeout_s=0.2)
    assert time.monotonic() - began < 2
    redis_server.resume()
    assert redis_server.ask("EXISTS", "key") == ":1"
    redis_server.flush()
    assert redis_server.ask("EXISTS", "key") == ":0"


def test_paused_redis_can_be_stopped() -> None:
    with RedisServer() as server:
        server.pause()


def test_password_is_required() -> None:
    with RedisServer(password="secret-word") as server:
        assert server.url == f"redis://:secret-word@127.0.0.1:{server.port}/0"
        assert server.ask("PING") == "+PONG"
        server._password = None
        assert server.ask("PING").startswith("-NOAUTH")
