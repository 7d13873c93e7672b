"""Slots and limits are kept in Redis, which fails; and one of two machines that share it dies."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.reliability.asked import DIALECTS, Asked, ask
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig.boxes import WorkBox
from tests.rig.calls import FACES
from tests.rig.coordinator import counts, join_coordinator, wait_until_counted
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.redis_server import RedisServer

COUNTED = "token-with-a-limit"
SLOTS, TAKES_S, PASS = 4, 0.03, 5
#: Seconds after which counts are exact again: Redis is back, and a machine has died.
REDIS_S, MACHINE_S = 5.0, 16.0
CHAT = FACES["native chat"]


redis = module_fixture(RedisServer)


@pytest.fixture(scope="module")
def rig(redis: RedisServer) -> Iterator[Rig]:
    tokens = [
        {"name": "team", "token": TOKEN},
        {"name": "counted", "token": COUNTED, "limits": {"requests_per_minute": PASS}},
    ]
    config = {"auth": {"generate_tokens": tokens}, "state": {"url": redis.url}}
    with (
        WorkBox("box1", ["m"], slots=SLOTS) as box,
        Rig(
            config=config, workers=2, boxes=[box], upstream={"concurrency": SLOTS}, shares=True
        ) as running,
    ):
        yield running


@contextmanager
def load(row: Row) -> Iterator[list[Asked]]:
    """Requests in every dialect, three times as many at a time as there are slots,
    until the block ends."""
    asked: list[Asked] = []
    is_over = threading.Event()

    def keep_asking(number: int) -> None:
        while not is_over.is_set():
            asked.append(ask(row, DIALECTS[number % len(DIALECTS)]))

    row.upstream.takes_s = TAKES_S
    with ThreadPoolExecutor(3 * SLOTS) as pool:
        clients = [pool.submit(keep_asking, number) for number in range(3 * SLOTS)]
        try:
            yield asked
        finally:
            is_over.set()
        for each in clients:
            each.result(30)
    row.upstream.takes_s = 0.0


def more_than(asked: list[Asked], count: int) -> Callable[[], bool]:
    """A condition: so many more have their answers."""
    before = len(asked)
    return lambda: len(asked) > before + count


def noted(row: Row, event: str) -> int:
    """How often something is in the log."""
    return len(row.gateway.events(event))


# P25


@pytest.mark.parametrize("fault", ["stops", "hangs", "is emptied"])
def test_p25_redis_fails(row: Row, redis: RedisServer, fault: str) -> None:
    """Nobody's request fails, nobody gets more than slots and limits allow, and it is
    used again by itself."""
    with load(row) as asked:
        wait_until(more_than(asked, 50), 20, "there is no load")
        began, back = time.monotonic(), noted(row, "shared_state_back")
        if fault == "is emptied":
            redis.flush()
        else:
            redis.kill() if fault == "stops" else redis.pause()
        try:
            wait_until(more_than(asked, 50), 20, lambda: f"only {len(asked)} were served")
            row.measured("50 requests served within", time.monotonic() - began, "s")
            if fault != "is emptied":
                wait_for_minute(10)
                limited = Counter(
                    ask(row, DIALECTS[0], bearer(COUNTED)).status for _ in range(3 * PASS)
                )
                assert limited.keys() <= {200, 429} and limited[200] <= PASS, limited
                assert ask(row, DIALECTS[0], bearer("unknown")).status == 401
        finally:
            if fault == "stops":
                redis.start()
            elif fault == "hangs":
                redis.resume()
        if fault != "is emptied":
            wait_until(
                lambda: noted(row, "shared_state_back") > back, REDIS_S, "it is not used again"
            )
        wait_until(more_than(asked, 50), 20, "nothing is served any more")
    assert {each.status for each in asked} == {200}
    assert row.upstream.most <= SLOTS + row.gateway.workers - 1
    wait_until_counted(row.gateway, 0, 0, REDIS_S)
    row.upstream.clear()
    with load(row) as asked:
        wait_until(more_than(asked, 50), 20, "nothing is served any more")
    assert row.upstream.most <= SLOTS


# P27


@pytest.mark.door("gateway")
def test_p27_a_machine_dies_with_all_slots(row: Row) -> None:
    """What it held is free again as soon as its leases have expired; until then, the other
    machine's requests wait."""
    row.upstream.go.clear()
    with Gateway(row.rig.config) as other, ExitStack() as streams:
        row.upstream.go.set()
        join_coordinator(other, TOKEN)
        row.upstream.clear()
        row.upstream.go.clear()
        for _ in range(SLOTS):
            body = {**CHAT.body, "stream": False}
            streams.enter_context(other.open(CHAT.path, body, wait_for_head=False))
        wait_until_counted(other, SLOTS, 0)
        with ThreadPoolExecutor(len(DIALECTS)) as pool:
            waiting = [pool.submit(ask, row, way) for way in DIALECTS]
            wait_until_counted(row.gateway, 0, len(DIALECTS))
            assert len(row.upstream.prompts) == SLOTS
            died = time.monotonic()
            other.kill()
            row.upstream.go.set()
            wait_until(
                lambda: counts(row.gateway)[1] == 0,
                MACHINE_S,
                lambda: f"{counts(row.gateway)} run and wait",
            )
            row.measured("slots free after", time.monotonic() - died, "s")
            assert {each.result(10).status for each in waiting} == {200}
    assert row.upstream.most == SLOTS
