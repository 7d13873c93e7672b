"""`python -m benchmarks.queueing.shared redis://127.0.0.1/0`: what a decision costs
if its state is in Redis.

Two machines in one process; four boxes with two slots each, all in use. Everything of this run has
names of its own in Redis, and is removed.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable
from functools import partial

from ollama_proxy.coordination import QueueLimits, Request
from ollama_proxy.coordination.redis_scheduler import RedisScheduler
from ollama_proxy.coordination.redis_store import connect_redis

CANDIDATES = [tuple((f"box{box}", f"model{number}") for box in range(4)) for number in range(5)]
LIMITS = QueueLimits(max_waiting=10**6, max_wait_s=10**6)
CALLS = 200


def ask(machine: RedisScheduler, number: int) -> None:
    turns = tuple((f"{number}{turn}".rjust(16, "0"), 100 * turn) for turn in range(4))
    request = Request(
        f"1/{number:08d}", f"user{number % 50}", CANDIDATES[number % 5], conversation=turns
    )
    machine.acquire(request, time.monotonic())


def make_calls(first: RedisScheduler, second: RedisScheduler) -> list[Callable[[], object]]:
    """Requests of two machines in turn, which wait and leave again."""
    calls: list[Callable[[], object]] = []
    for number in range(10_000, 10_000 + CALLS, 2):
        pair = ((first, number), (second, number + 1))
        calls += [partial(ask, machine, each) for machine, each in pair]
        calls += [partial(machine.cancel_all, [f"1/{each:08d}"], 0) for machine, each in pair]
    return calls


def measure(calls: list[Callable[[], object]]) -> str:
    """Milliseconds per call, and of processor time in this process."""
    began, used = time.perf_counter(), time.process_time()
    for call in calls:
        call()
    each, work = (
        (now - then) / len(calls)
        for now, then in ((time.perf_counter(), began), (time.process_time(), used))
    )
    return f"{each * 1000:.1f} ms ({work * 1000:.1f} ms)"


def run(url: str, waiting: int) -> str:
    """A row of the table."""
    prefix = f"benchmark-{secrets.token_hex(4)}:"
    machines = [
        RedisScheduler(connect_redis(url), name, LIMITS, lambda _: None, prefix)
        for name in ("one", "two")
    ]
    for machine in machines:
        machine.start()
        for box in range(4):
            machine.set_box(f"box{box}", 0, slots=2, max_loaded=2)
    for number in range(8 + waiting):
        ask(machines[0], number)
    first, second = machines
    alone = measure(make_calls(first, first))
    in_turn = measure(make_calls(first, second))
    size = machines[1]._seen[0]
    for machine in machines:
        machine.close()
    client = connect_redis(url)
    client.delete(*client.keys(f"{prefix}*"))
    client.close()
    return f"| {waiting} | {alone} | {in_turn} | {len(size) / 1000:.0f} kB |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.queueing.shared", description=__doc__
    )
    parser.add_argument("url", help="of a Redis")
    options = parser.parse_args()
    print("| waiting | one machine decides | two take turns | document |\n|--:|--:|--:|--:|")
    for waiting in (0, 100, 1000):
        print(run(options.url, waiting))
    return 0


if __name__ == "__main__":
    sys.exit(main())
