"""One document in Redis that several machines change, each at a time, and the
leases of these machines.

A change is read, decided and written under WATCH and MULTI; if another machine was faster, it is
repeated. Everything ends within seconds, whatever Redis does: any failure is a redis.RedisError.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

#: Seconds for a reply of Redis, and for a change with all its repetitions.
SOCKET_TIMEOUT_S, CHANGE_TIMEOUT_S = 1.0, 2.0

#: Seconds after which a listener looks whether messages are still wanted.
LISTEN_S = 0.25

#: The longest pause after a lost race, in seconds.
MAX_PAUSE_S = 0.01

#: Seconds without traffic after which a connection is checked before it is used.
HEALTH_CHECK_S = 10

#: Takes the document (None: there is none) and Redis's time in seconds; returns the new
#: document, and a message.
Change = Callable[[bytes | None, float], tuple[bytes, bytes | None]]

Command = Sequence[str | bytes | int]


def connect_redis(url: str) -> redis.Redis:
    """A client that neither waits long nor tries again. Raises ValueError, without the
    address, if that is invalid."""
    try:
        return redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError:
        raise ValueError("the address of Redis is invalid") from None


class RedisStore:
    """The document, the channel for messages about its changes, and the leases; all
    names begin with `prefix`.

    Programs that write another version of the document do not see it.
    """

    def __init__(self, client: redis.Redis, prefix: str, version: int) -> None:
        self._client = client
        self._key, self._channel = f"{prefix}state:{version}", f"{prefix}decisions:{version}"
        #: Before the names of machines.
        self._lease = f"{prefix}lease:"
        #: Changes that had to be repeated.
        self.lost_races = 0

    def change(self, change: Change) -> None:
        """Applies a change, and publishes its message together with it."""
        deadline_s = time.monotonic() + CHANGE_TIMEOUT_S
        pool = self._client.connection_pool
        while True:
            connection: Any = pool.get_connection()
            try:
                _, (seconds, microseconds), text = _ask(
                    connection, ("WATCH", self._key), ("TIME",), ("GET", self._key)
                )
                new, message = change(text, int(seconds) + int(microseconds) / 1e6)
                if new == text:
                    _ask(connection, ("UNWATCH",))
                    return
                publish = [("PUBLISH", self._channel, message)] if message else []
                replies = _ask(connection, ("MULTI",), ("SET", self._key, new), *publish, ("EXEC",))
            except BaseException:
                # There may be replies that nobody has read, and the key is watched.
                connection.disconnect()
                raise
            finally:
                pool.release(connection)
            if replies[-1] is not None:
                return
            # Another machine was faster.
            self.lost_races += 1
            if time.monotonic() > deadline_s:
                raise redis.TimeoutError("Other machines changed the state again and again.")
            time.sleep(random.uniform(0, MAX_PAUSE_S))

    def renew_lease(self, machine: str, lease_s: float) -> None:
        """Says that a machine is alive for another `lease_s` seconds."""
        self._client.set(self._lease + machine, 1, px=int(lease_s * 1000))

    def end_lease(self, machine: str) -> None:
        """Says that a machine has left."""
        self._client.delete(self._lease + machine)

    def find_dead(self, machines: Iterable[str]) -> set[str]:
        """Those of the machines that have no lease."""
        names = list(machines)
        leases: Any = self._client.mget([self._lease + name for name in names]) if names else []
        return {name for name, lease in zip(names, leases, strict=True) if lease is None}

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def listen(self, receive: Callable[[bytes], None], is_wanted: Callable[[], bool]) -> None:
        """Passes on messages as long as they are wanted, or until the connection is lost."""
        client: Any = self._client
        with client.pubsub(ignore_subscribe_messages=True) as messages:
            messages.subscribe(self._channel)
            while is_wanted():
                message = messages.get_message(timeout=LISTEN_S)
                if message:
                    receive(message["data"])


def _ask(connection: Any, *commands: Command) -> list[Any]:
    """The replies to commands that are sent together."""
    connection.send_packed_command(connection.pack_commands(commands))
    return [connection.read_response() for _ in commands]
