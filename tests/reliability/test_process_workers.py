"""Process and host, one worker of several: it is replaced, killed, blocked or recycled
while the others serve."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.reliability.load import Load, ask
from tests.reliability.rig import PROBE_TOKEN, TOKEN, Rig, Row, allowed, nginx_decides
from tests.rig.calls import CHAT_LINE, FACES, is_well_ended
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Lines, WaitFor
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream
from tests.rig.leaks import worker_details

pytestmark = pytest.mark.slow

REPLACED_S = allowed(3)
FACE = FACES["openai chat"]


rig = module_fixture(lambda: Rig(workers=2))


class LongStreams:
    """Answers that have begun, and go on to their end when the test says so."""

    def __init__(self, row: Row, closing: ExitStack) -> None:
        self._row = row
        self._closing = closing
        self._go_on = threading.Event()
        end = {**CHAT_LINE, "done": True, "done_reason": "stop"}
        row.upstream.script(
            FACE.upstream_path, [Lines([CHAT_LINE]), WaitFor(self._go_on, 60), Lines([end])]
        )
        self.streams: dict[str, Stream] = {}

    def open(self) -> None:
        """One more."""
        id = "long-" + secrets.token_hex(8)
        stream = self._row.open(FACE.path, {**FACE.body, "stream": True}, id=id)
        self.streams[id] = self._closing.enter_context(stream)

    def broken(self) -> list[str]:
        """Lets them go on; gives those that did not come to their good end."""
        self._go_on.set()
        ends = {id: stream.read_all(10) for id, stream in self.streams.items()}
        return [
            id
            for id, body in ends.items()
            if not (self.streams[id].complete and is_well_ended(body, FACE))
        ]


@contextmanager
def long_streams(row: Row, count: int) -> Iterator[LongStreams]:
    with ExitStack() as closing:
        streams = LongStreams(row, closing)
        for _ in range(count):
            streams.open()
        yield streams


def in_flight(gateway: Gateway) -> dict[int, int]:
    """How many requests each worker answers at this moment."""
    return {
        pid: int(details["in_flight"]) for pid, details in worker_details(gateway, TOKEN).items()
    }


@nginx_decides
def test_p8_hangup_touches_no_stream_even_if_a_fresh_worker_dies(row: Row) -> None:
    row.allow_other_workers("a hangup replaces them")
    allow_one_loss(row)
    gateway, old, began = row.gateway, row.gateway.worker_pids(), time.monotonic()
    with long_streams(row, 10) as streams, Load(lambda: ask(row.url), pause_s=0.01) as load:
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: len(gateway.worker_pids() - old) == 2, 10, "no fresh workers")
        fresh = gateway.worker_pids() - old
        wait_until(lambda: fresh <= answering(gateway), 10, "a fresh worker does not answer")
        os.kill(min(fresh), signal.SIGKILL)
        load.wait_for(load.total + 50, 10)
        assert streams.broken() == []
        gone = old | {min(fresh)}
        wait_until(
            lambda: len(now := gateway.worker_pids()) == 2 and not now & gone, 10, "no replacement"
        )
    lost = load.total - load.outcomes[200]
    row.measured("requests meanwhile", load.total, "")
    row.measured("lost with the fresh worker", lost, "")
    assert lost <= 1
    assert sum(sample.problem is not None for sample in row.probe.window(began)) <= 2


def allow_one_loss(row: Row) -> None:
    """A worker is killed, and with it whatever each client had asked it at that moment."""
    row.allow_probe_errors("the killed worker may have been answering a probe")
    row.allow(502)


def answering(gateway: Gateway) -> set[int]:
    """Workers that answer."""
    return set(worker_details(gateway, TOKEN))


def test_p9_killed_worker_costs_only_its_own_streams(row: Row) -> None:
    row.allow_other_workers("one is killed")
    allow_one_loss(row)
    gateway = row.gateway
    with long_streams(row, 10) as streams:
        while min(in_flight(gateway).values()) < 2:
            streams.open()
        busy = in_flight(gateway)
        victim = max(busy, key=lambda pid: busy[pid])
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: len(gateway.worker_pids() - {victim}) == 2, REPLACED_S, "no replacement")
        wait_until(lambda: len(worker_details(gateway, TOKEN)) == 2, REPLACED_S)
        row.measured("replaced after", time.monotonic() - began, "s")
        assert time.monotonic() - began < REPLACED_S
        broken = streams.broken()
        row.expect_lost(*broken)
        # A probe or two may be among those that it was answering.
        assert busy[victim] - 2 <= len(broken) <= busy[victim]
        assert broken
    wait_until(
        lambda: row.upstream.connections_open <= 10, 10, "connections of the dead worker stay open"
    )


BLOCKED_S, WORKER_TIMEOUT_S = 15, 5


def test_p10_blocked_worker_is_noticed_and_replaced(door: str) -> None:
    options: dict[str, Any] = {
        "workers": 2,
        "app": "tests.rig.blocking_app:app",
        "env": {"WORKER_TIMEOUT": str(WORKER_TIMEOUT_S)},
    }
    with Rig(**options) as rig, rig.row(door) as row:
        row.allow_other_workers("the blocked one is replaced")
        allow_one_loss(row)
        workers, blocked, began = rig.gateway.worker_pids(), block(row), time.monotonic()
        wait_until(
            lambda: rig.gateway.events("event_loop_blocked"), 5, "nobody says that it is blocked"
        )
        (event,) = rig.gateway.events("event_loop_blocked")
        row.measured("said after", time.monotonic() - began, "s")
        assert any(place.startswith("blocking_app.py") for place in event["where"])
        answered = [ask(rig.gateway.url, timeout=2) for _ in range(8)]
        assert answered.count(200) >= 4
        assert rig.gateway.worker_pids() == workers, (
            "it was killed too early to see the other one work"
        )
        wait_until(
            lambda: len(now := rig.gateway.worker_pids()) == 2 and now != workers,
            BLOCKED_S,
            "not replaced",
        )
        row.measured(
            f"replaced with a limit of {WORKER_TIMEOUT_S} s after", time.monotonic() - began, "s"
        )
        assert time.monotonic() - began < BLOCKED_S
        blocked.join(BLOCKED_S)
        wait_until(lambda: len(worker_details(rig.gateway, PROBE_TOKEN)) == 2, 5)


def block(row: Row) -> threading.Thread:
    """A request that holds its worker, asked by somebody who does not mind what comes of it."""
    thread = threading.Thread(target=ask, args=(row.url, f"/test/block/{BLOCKED_S}"))
    thread.start()
    return thread


#: More requests than it takes to find the worker that has the stream.
RECYCLED_AFTER = 40


@nginx_decides
def test_p11_recycled_worker_cuts_no_stream(door: str) -> None:
    """Without the rules that ask every worker about itself: here that would
    recycle it once more."""
    with Rig(workers=2, env={"GUNICORN_CMD_ARGS": f"--max-requests={RECYCLED_AFTER}"}) as rig:
        row = Row(rig, door)
        row.allow_no_probe_p99("new connections wait for the next worker")
        with long_streams(row, 1) as streams:
            busy = in_flight(rig.gateway)
            its_worker = max(busy, key=lambda pid: busy[pid])
            began = rig.start_probe(door)
            with Load(lambda: ask(row.url, timeout=30), pause_s=0.02) as load:
                wait_until(
                    lambda: its_worker not in answering(rig.gateway), 20, "it is not recycled"
                )
                load.wait_for(load.total + RECYCLED_AFTER, 20)
            assert its_worker in rig.gateway.worker_pids()
            assert streams.broken() == []
            samples = rig.probe.pause(began, 1)
        wait_until(
            lambda: its_worker not in rig.gateway.worker_pids(),
            10,
            "it has no stream left, and stays",
        )
        assert load.outcomes.keys() == {200}
        assert row.rules.probe_problems(samples) + row.rules.output_problems() == []
        assert [row.record(id)["state"] for id in streams.streams] == ["ok"]
