"""A worker or the coordinator is killed while requests hold slots and wait: whoever
is left gets an answer."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import FACES, SSE_FACES, TOKEN, ask, is_well_ended
from tests.rig.coordinator import (
    EXACT_AGAIN_S,
    coordinator_pid,
    join_coordinator,
    kill_coordinator,
    wait_until_counted,
)
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import START_S, Gateway
from tests.rig.http_client import Stream
from tests.rig.leaks import worker_details

SLOTS, WORKERS = 4, 2
FACE = SSE_FACES["openai chat"]


box = function_fixture(lambda: WorkBox("box1", ["m"], slots=SLOTS))


@pytest.fixture
def gateway(box: WorkBox) -> Iterator[Gateway]:
    with Gateway(
        fleet_config(TOKEN, [box], stream={"heartbeat_s": 0.2}), workers=WORKERS
    ) as running:
        join_coordinator(running, TOKEN)
        box.clear()
        yield running
        wait_until_counted(running, 0, 0, EXACT_AGAIN_S)
        assert "Traceback" not in running.output()


def open_streams(gateway: Gateway, streams: ExitStack, count: int) -> list[Stream]:
    """So many requests, by turns to each worker, of which some hold all slots."""
    workers = itertools.cycle(map(gateway.url_of, gateway.worker_pids()))
    found = [
        streams.enter_context(ask(next(workers), FACE, wait_for_head=False)) for _ in range(count)
    ]
    wait_until_counted(gateway, SLOTS, count - SLOTS)
    return found


def has_answer(stream: Stream) -> bool:
    """Whether it is a whole answer; False if the connection broke off."""
    try:
        body = stream.read_all(20)
    except ConnectionError:
        return False
    if not stream.complete:
        return False
    assert stream.status == 200 and is_well_ended(body, FACE), body
    return True


def test_a_worker_is_killed(gateway: Gateway, box: WorkBox) -> None:
    """What it held is free at once; its own streams end, and nobody else's."""
    box.go.clear()
    with ExitStack() as streams:
        found = open_streams(gateway, streams, 4 * SLOTS)
        watched = {
            pid: details["watched"] for pid, details in worker_details(gateway, TOKEN).items()
        }
        killed = max(watched, key=lambda pid: watched[pid])
        lost, left = watched[killed], 4 * SLOTS - watched[killed]
        assert lost and left, watched
        os.kill(killed, signal.SIGKILL)
        wait_until_counted(gateway, min(SLOTS, left), max(0, left - SLOTS), EXACT_AGAIN_S)
        box.go.set()
        assert sorted(map(has_answer, found)) == [False] * lost + [True] * left
    wait_until(lambda: len(gateway.worker_pids()) == WORKERS, 20)


def test_the_coordinator_is_killed_while_requests_wait(gateway: Gateway, box: WorkBox) -> None:
    """A new one knows soon who holds a slot and who waits; nobody notices."""
    box.go.clear()
    with ExitStack() as streams:
        found = open_streams(gateway, streams, 3 * SLOTS)
        pid = kill_coordinator(gateway)
        wait_until(
            lambda: coordinator_pid(gateway) not in (0, pid),
            EXACT_AGAIN_S,
            "there is no new coordinator",
        )
        wait_until_counted(gateway, SLOTS, 2 * SLOTS, EXACT_AGAIN_S)
        assert len(box.prompts) == SLOTS
        box.go.set()
        assert all(map(has_answer, found))
    assert box.most == SLOTS


@contextmanager
def steady_load(gateway: Gateway) -> Iterator[list[int]]:
    """Requests of every kind one after the other, three times as many at a time as there are
    slots; their statuses."""
    statuses: list[int] = []
    is_over = threading.Event()

    def keep_asking(number: int) -> None:
        faces = list(FACES.values())
        while not is_over.is_set():
            face = faces[(number + len(statuses)) % len(faces)]
            answer = gateway.ask(face.path, face.body | {"stream": number % 2 == 0}, timeout=30)
            assert number % 2 or is_well_ended(answer.body, face), answer.body
            statuses.append(answer.status)

    with ThreadPoolExecutor(3 * SLOTS) as pool:
        clients = [pool.submit(keep_asking, number) for number in range(3 * SLOTS)]
        try:
            yield statuses
        finally:
            is_over.set()
        for each in clients:
            each.result(30)


def test_the_coordinator_is_killed_again_and_again_under_load(
    gateway: Gateway, box: WorkBox
) -> None:
    """No request fails, and the box has at most one request more for each worker but one."""
    box.takes_s = 0.03
    with steady_load(gateway) as statuses:
        for _ in range(3):
            pid, before = kill_coordinator(gateway), len(statuses)
            wait_until(
                lambda pid=pid: coordinator_pid(gateway) not in (0, pid),
                START_S,
                "there is no new coordinator",
            )
            wait_until(
                lambda before=before: len(statuses) > before + 50, 10, "nothing is served any more"
            )
    assert set(statuses) == {200}
    assert box.most <= SLOTS + WORKERS - 1
    wait_until_counted(gateway, 0, 0, EXACT_AGAIN_S)
    box.clear()
    with steady_load(gateway) as statuses:
        wait_until(lambda: len(statuses) > 50, 10)
    assert box.most == SLOTS


def test_there_is_no_coordinator_for_a_while(gateway: Gateway, box: WorkBox) -> None:
    """A coordinator that hangs costs a moment; then each worker grants its share,
    and requests are served."""
    box.takes_s = 0.03
    with steady_load(gateway) as statuses:
        pid = coordinator_pid(gateway)
        os.kill(pid, signal.SIGSTOP)
        try:
            before = len(statuses)
            wait_until(
                lambda: len(statuses) > before + 100,
                15,
                lambda: f"{len(statuses) - before} were served",
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        events = [line["event"] for line in gateway.log_lines("events")]
        assert "coordinator_unavailable" in events
        wait_until(
            lambda: (
                [line["event"] for line in gateway.log_lines("events")].count("coordinator_back")
                >= 1
            ),
            10,
        )
    assert set(statuses) == {200}
    assert box.most <= SLOTS + WORKERS - 1


IDLE_S = 1.0
_BRIEF = "import sys, pathlib; from ollama_proxy.coordination import run_coordinator as run; "
_BRIEF += "sys.exit(not run(pathlib.Path(sys.argv[1]), idle_s=float(sys.argv[2])))"


def test_the_coordinator_ends_after_the_last_worker(box: WorkBox) -> None:
    """It stays as long as there is a worker, however long that needs nothing, and
    takes its socket with it."""
    with Gateway(fleet_config(TOKEN, [box]), workers=WORKERS) as gateway:
        command = [sys.executable, "-c", _BRIEF, str(gateway.state_directory), str(IDLE_S)]
        with subprocess.Popen(command) as process:
            try:
                wait_until(lambda: coordinator_pid(gateway) == process.pid, 10, "it did not start")
                join_coordinator(gateway, TOKEN)
                quiet_until = time.monotonic() + 2 * IDLE_S
                wait_until(
                    lambda: process.poll() is not None or time.monotonic() > quiet_until, 3 * IDLE_S
                )
                assert process.poll() is None, "it has left its workers"
                assert gateway.stop() == 0
                assert process.wait(IDLE_S + EXACT_AGAIN_S) == 0
                assert not (gateway.state_directory / "coordinator.sock").exists()
            finally:
                process.kill()
