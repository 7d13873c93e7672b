"""Slots and limits of several machines: a coordinator whose store is in Redis."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import orjson
import redis

from ollama_proxy.coordination.concurrency import RedisConcurrency
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import Limiter
from ollama_proxy.coordination.redis_counters import CounterStorage
from ollama_proxy.coordination.redis_scheduler import RedisScheduler
from ollama_proxy.coordination.redis_store import connect_redis
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.state import StateUnavailable
from ollama_proxy.coordination.store import Store, make_share

#: The file with the name of this machine among the others. It stays the same when the coordinator
#: is restarted, so that the new one has what the old one held.
NAME_FILE = "coordinator.name"

#: Where machines say once a second what runs and waits there; what is older than OLD_STATUS_S is of
#: a machine that has gone, whose clock may differ by less than that.
STATUS_KEY, STATUS_S, OLD_STATUS_S = "ollama-proxy:status", 1.0, 60.0


def build_shared_coordinator(
    directory: Path, url: str, *, settle_s: float = 0.0, resettle_s: float = 0.0
) -> Coordinator:
    """A coordinator that shares everything with those that have the same Redis. While that is lost,
    it grants its share by itself. `settle_s`, `resettle_s`: see Coordinator. Raises ValueError for
    an invalid address, OSError if the directory can't be used."""
    client, machine = connect_redis(url), machine_name(directory)
    scheduler = RedisScheduler(
        client, machine, QueueLimits(), lambda decisions: coordinator.deliver(decisions)
    )
    concurrency = RedisConcurrency(client, machine)
    storage = CounterStorage(client)
    store = Store(
        scheduler,
        Limiter(storage, concurrency=concurrency),
        is_shared=True,
        failures=(StateUnavailable, redis.RedisError),
        note_lost=scheduler.note_lost,
        count_machines=lambda: scheduler.machines,
        read_statuses=lambda: read_statuses(client, machine),
    )

    def come_back() -> None:
        with suppress(redis.RedisError):  # it is lost again, which the next request notices
            concurrency.announce()
        coordinator.resume(store)

    coordinator = Coordinator(
        store,
        settle_s=settle_s,
        resettle_s=resettle_s,
        stand_in=lambda: make_share(1 / scheduler.machines),
    )
    scheduler.announce, scheduler.on_return = coordinator.announce, come_back
    scheduler.start()
    gevent.spawn(publish_status, client, machine, coordinator)
    return coordinator


def publish_status(client: redis.Redis, machine: str, coordinator: Coordinator) -> None:
    """Tells the other machines what runs and waits here, as long as the process lives."""
    while True:
        with suppress(redis.RedisError):  # the scheduler reports it
            client.hset(
                STATUS_KEY, machine, orjson.dumps({"at": time.time(), **coordinator.describe()})
            )
        gevent.sleep(STATUS_S)


def read_statuses(client: redis.Redis, machine: str) -> list[Frame]:
    """The recent statuses of the other machines; none while Redis is lost."""
    try:
        rows: Any = client.hgetall(STATUS_KEY)
    except redis.RedisError:
        return []
    statuses = [orjson.loads(text) for name, text in rows.items() if name.decode() != machine]
    return [status for status in statuses if abs(time.time() - status["at"]) < OLD_STATUS_S]


def machine_name(directory: Path) -> str:
    """The name of the machine with this state directory."""
    path = directory / NAME_FILE
    with suppress(FileNotFoundError):
        name = path.read_text("ascii").strip()
        if name.isalnum():
            return name
    name = secrets.token_hex(8)
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(name + "\n")
    return name
