"""Slots and limits of several machines: a coordinator whose store is in Redis."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import redis
from limits.storage import RedisStorage

from ollama_proxy.coordination.concurrency import RedisConcurrency
from ollama_proxy.coordination.coordinator import Coordinator, Store, make_share
from ollama_proxy.coordination.limits import Limiter
from ollama_proxy.coordination.redis_scheduler import RedisScheduler
from ollama_proxy.coordination.redis_store import connect_redis
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.state import StateUnavailable

#: The file with the name of this machine among the others. It stays the same when the coordinator is restarted, so
#: that the new one has what the old one held.
NAME_FILE = "coordinator.name"


def build_shared_coordinator(
    directory: Path, url: str, *, settle_s: float = 0.0, resettle_s: float = 0.0
) -> Coordinator:
    """A coordinator that shares everything with those that have the same Redis. While that is lost, it grants its share
    by itself. `settle_s`, `resettle_s`: see Coordinator. Raises ValueError for an invalid address, OSError if the
    directory can't be used."""
    client, machine = connect_redis(url), machine_name(directory)
    scheduler = RedisScheduler(client, machine, QueueLimits(), lambda decisions: coordinator.deliver(decisions))
    concurrency = RedisConcurrency(client, machine)
    storage = RedisStorage("redis://", connection_pool=client.connection_pool)
    store = Store(
        scheduler,
        Limiter(storage, concurrency=concurrency),
        is_shared=True,
        failures=(StateUnavailable, redis.RedisError),
        note_lost=scheduler.note_lost,
        count_machines=lambda: scheduler.machines,
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
    return coordinator


def machine_name(directory: Path) -> str:
    """The name of the machine with this state directory."""
    path = directory / NAME_FILE
    with suppress(FileNotFoundError):
        name = path.read_text("ascii").strip()
        if name.isalnum():
            return name
    name = secrets.token_hex(8)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(name + "\n")
    return name
