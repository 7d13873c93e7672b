"""What happens in a soak, and when: clients all the time, restarts now and then, one edit after
each third; the coordinator, a worker and Redis are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from benchmarks.meter import read_cpu, resident_mb
from benchmarks.soak.cast import BOXES, LAB, Stage, pause_until
from benchmarks.soak.client import TOKEN
from tests.golden.face import warm
from tests.rig.coordinator import counts, join_coordinator, kill_coordinator, workers_connected
from tests.rig.deadline import wait_until
from tests.rig.leaks import Details, worker_details
from tests.rig.probe import Sample
from tests.rig.rules import RowLeaks

#: About so many seconds between two restarts, and so long a server is away.
RESTART_EVERY_S, AWAY_S = 45.0, (0.5, 2.5)
FEWEST_RESTARTS = 4
#: The coordinator is killed about as often, and at least twice; a worker once, after so much
#: of the time, and Redis.
COORDINATOR_EVERY_S, FEWEST_COORDINATORS = 60.0, 2
WORKER_AT, REDIS_AT, REDIS_AWAY_S = 0.4, 0.55, 2.0
#: An edit counts in every worker after so many seconds.
RELOAD_S = 5.0
#: Memory is measured so often; more often in a short run.
SAMPLE_S = 10.0
#: How long whatever was opened may take to be closed again behind the last answer.
CLOSING_S = 20.0
#: How long the probe may take to reach every worker.
WARM_S = 20.0
#: Beyond the time of the clients.
GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Restart:
    """A server that was gone for a while; seconds since 1970."""

    name: str
    killed: float
    back: float


@dataclass(slots=True)
class Record:
    """What was seen in one run."""

    seconds: float
    streams: int
    seed: int
    restarts: list[Restart] = field(default_factory=list)
    #: When a worker was killed, in seconds since 1970 and on the monotonic clock.
    workers_killed: list[tuple[float, float]] = field(default_factory=list)
    #: How often something else was killed, by its name.
    killed: Counter[str] = field(default_factory=Counter)
    #: What was edited, and after how many seconds.
    edits: list[tuple[float, str]] = field(default_factory=list)
    #: By process id: seconds since the start, and MB.
    memory: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    probe: list[Sample] = field(default_factory=list)
    #: CPU seconds. That of the gateway's killed processes is not known.
    nginx_cpu_s: float = 0.0
    #: What each worker says of itself behind the last answer.
    workers: dict[int, Details] = field(default_factory=dict)
    #: Kept open, in words; "": nothing.
    leak: str = ""
    #: The clients were not through in time, or failed.
    clients_failed: str = ""


def run(stage: Stage, *, seconds: float, streams: int, seed: int) -> Record:
    """One soak of so many seconds."""
    record = Record(seconds, streams, seed)
    # Not yet through nginx, which keeps connections open.
    stage.probe.watch([stage.gateway.pid, stage.nginx.pid], {"gateway": stage.gateway.port})
    stage.probe.go()
    warm(stage.gateway, TOKEN)
    join_coordinator(
        stage.gateway,
        TOKEN,
        {"model": "steady", "messages": [{"role": "user", "content": "hi"}], "stream": False},
    )
    wait_until(lambda: _are_alike(stage), WARM_S, "the probe has not reached every worker")
    leaks = RowLeaks(stage.gateway, token=TOKEN, idle=2 * streams)
    leaks.other_workers = True
    begin = time.monotonic()
    doors = {"gateway": stage.gateway.port, "nginx": stage.nginx.port}
    stage.probe.watch([stage.gateway.pid, stage.nginx.pid], doors)
    since = stage.probe.go()
    guest_from = time.time() + seconds / 3 + RELOAD_S + 1
    with _measured(stage, record, begin):
        with stage.clients(
            streams=streams, until=time.time() + seconds, guest_from=guest_from, seed=seed
        ) as clients:
            for moment, act in _acts(stage, record, begin):
                pause_until(begin + moment)
                act()
            _wait_for(clients, record)
        record.probe = stage.probe.pause(since, doors=2)
    _look_for_leaks(stage, leaks, record)
    return record


def _are_alike(stage: Stage) -> bool:
    """Whether every worker has started what it starts with its first request and keeps."""
    workers = worker_details(stage.gateway, TOKEN).values()
    served = all(details["upstream_connections"]["idle"] for details in workers)
    served = served and workers_connected(stage.gateway) == stage.gateway.workers
    return served and len({details["greenlets"] for details in workers}) == 1


def _acts(stage: Stage, record: Record, begin: float) -> list[tuple[float, Callable[[], None]]]:
    """What is to happen, in order, each with its time in seconds."""
    chance = random.Random(record.seed)
    count = max(FEWEST_RESTARTS, int(record.seconds / RESTART_EVERY_S))
    names = [(*BOXES, LAB)[number % 4] for number in range(count)]

    def restart(name: str) -> Callable[[], None]:
        away_s, kill = chance.uniform(*AWAY_S), chance.random() < 0.5
        return lambda: _restart(stage, record, name, away_s, kill=kill)

    def edit(what: str, **config: bool) -> Callable[[], None]:
        def act() -> None:
            stage.gateway.write_config(stage.config(**config))
            record.edits.append((time.monotonic() - begin, what))

        return act

    third = record.seconds / 3
    acts = [
        (record.seconds * (number + 0.5) / count, restart(name))
        for number, name in enumerate(names)
    ]
    kills = max(FEWEST_COORDINATORS, int(record.seconds / COORDINATOR_EVERY_S))
    acts += [
        (record.seconds * (number + 0.5) / kills, lambda: _kill_coordinator(stage, record))
        for number in range(kills)
    ]
    acts.append((WORKER_AT * record.seconds, lambda: _kill_worker(stage, record)))
    if stage.redis is not None:
        acts.append((REDIS_AT * record.seconds, lambda: _restart_redis(stage, record)))
    acts.append((third, edit("a box and a token more", extra=True, guest=True)))
    acts.append((2 * third, edit("the box away again", guest=True)))
    return sorted(acts, key=lambda act: act[0])


def _restart(stage: Stage, record: Record, name: str, away_s: float, *, kill: bool) -> None:
    killed = time.time()
    stage.upstreams[name].stop(kill=kill)
    time.sleep(away_s)
    stage.upstreams[name].start()
    record.restarts.append(Restart(name, killed, time.time()))


def _kill_coordinator(stage: Stage, record: Record) -> None:
    kill_coordinator(stage.gateway)
    record.killed["coordinator"] += 1


def _kill_worker(stage: Stage, record: Record) -> None:
    record.workers_killed.append((time.time(), time.monotonic()))
    os.kill(min(stage.gateway.worker_pids()), signal.SIGKILL)
    record.killed["worker"] += 1


def _restart_redis(stage: Stage, record: Record) -> None:
    assert stage.redis is not None
    stage.redis.kill()
    time.sleep(REDIS_AWAY_S)
    stage.redis.start()
    record.killed["Redis"] += 1


def _wait_for(clients: subprocess.Popen[bytes], record: Record) -> None:
    try:
        if code := clients.wait(record.seconds + GRACE_S):
            record.clients_failed = f"exit code {code}"
    except subprocess.TimeoutExpired:
        record.clients_failed = f"still running {GRACE_S:g} s after their time"


@contextmanager
def _measured(stage: Stage, record: Record, begin: float) -> Iterator[None]:
    """Memory all the time, and CPU of what happens inside."""
    over = threading.Event()
    every_s = max(1.0, min(SAMPLE_S, record.seconds / 30))

    def sample() -> None:
        while not over.wait(every_s):
            at = time.monotonic() - begin
            for pid in stage.gateway.worker_pids():
                with suppress(OSError):  # it was killed just now
                    record.memory.setdefault(pid, []).append((at, resident_mb(pid)))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    before = read_cpu(stage.nginx.pid)
    try:
        yield
    finally:
        over.set()
        sampler.join()
    try:
        record.nginx_cpu_s = read_cpu(stage.nginx.pid).spent_s(before)
    except RuntimeError as error:
        record.leak = str(error)


def _look_for_leaks(stage: Stage, leaks: RowLeaks, record: Record) -> None:
    try:
        wait_until(
            lambda: counts(stage.gateway) == (0, 0),
            CLOSING_S,
            lambda: "{} requests hold a slot, {} wait".format(*counts(stage.gateway)),
        )
        leaks.verify(CLOSING_S)
    except AssertionError as error:
        record.leak = str(error)
    record.workers = wait_until(lambda: _at_rest(stage), CLOSING_S, "some worker is never at rest")


def _at_rest(stage: Stage) -> dict[int, Details]:
    """What the workers say of themselves between two looks at the servers; nothing during one."""
    workers = worker_details(stage.gateway, TOKEN)
    return (
        {}
        if any(details["upstream_connections"]["active"] for details in workers.values())
        else workers
    )
