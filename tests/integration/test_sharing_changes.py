"""Requests wait while the gateway drains and reloads. Changes of limits, slots and tokens are in
tests/app/test_sharing_changes.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ollama_proxy.errors import ShuttingDown
from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import (
    FACES,
    SSE_FACES,
    TOKEN,
    Face,
    ask,
    error_text,
    last_error,
)
from tests.rig.coordinator import counts, join_coordinator, wait_until_counted
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, open_stream

OTHER = "other-token-1"
CHAT = FACES["native chat"]
SINGLE = {**CHAT.body, "stream": False}
#: More than a drain and a start of workers takes.
ENDED_S = 20.0


box = function_fixture(lambda: WorkBox("box1", ["m"], slots=1))


@pytest.fixture
def gateway(box: WorkBox) -> Iterator[Gateway]:
    auth = {"generate_tokens": [TOKEN, OTHER]}
    config = fleet_config(TOKEN, [box], auth=auth, stream={"heartbeat_s": 0.2})
    with Gateway(config) as running:
        join_coordinator(running, TOKEN)
        box.clear()
        yield running
        assert "Traceback" not in running.output()


def hold(gateway: Gateway, streams: ExitStack, token: str = OTHER) -> Stream:
    """Another team's request, which has the slot."""
    assert counts(gateway) == (0, 0)
    stream = open_stream(gateway.url, "POST", CHAT.path, SINGLE, bearer(token), wait_for_head=False)
    streams.enter_context(stream)
    wait_until_counted(gateway, 1, 0)
    return stream


def wait_in(gateway: Gateway, streams: ExitStack, way: tuple[Face, bool]) -> Stream:
    """A request that waits, behind all others."""
    running, waiting = counts(gateway)
    stream = streams.enter_context(ask(gateway.url, way[0], stream=way[1], wait_for_head=False))
    wait_until_counted(gateway, running, waiting + 1)
    return stream


def finish(stream: Stream) -> int:
    """The status of an answer that was read to its end."""
    stream.read_all(ENDED_S)
    return stream.status


WAYS = [(face, stream) for face in FACES.values() for stream in (True, False)]


def error_of(stream: Stream, way: tuple[Face, bool], status: int) -> str:
    """The text of the error that ends it, be that a status or the last frame of a stream."""
    body = stream.read_all(ENDED_S)
    if stream.status == 200:
        assert way[1] and way[0].path in {face.path for face in SSE_FACES.values()}
        return last_error(body, way[0])
    answer = Answer(stream.status, stream.headers, body, stream.complete)
    assert answer.status == status
    return error_text(answer, way[0])


@pytest.mark.parametrize("how", ["stop", "reload"])
def test_workers_end_while_requests_wait(gateway: Gateway, box: WorkBox, how: str) -> None:
    """What runs is finished; what waits is told to come back, and finds the
    slot in use until then."""
    box.go.clear()
    with ExitStack() as streams, ThreadPoolExecutor(1) as pool:
        running = hold(gateway, streams)
        waiting = [(way, wait_in(gateway, streams, way)) for way in WAYS]
        before = gateway.worker_pids()
        ended: Future[int] | None = None
        if how == "stop":
            ended = pool.submit(gateway.stop, ENDED_S)
        else:
            os.kill(gateway.pid, signal.SIGHUP)
        for way, stream in waiting:
            assert ShuttingDown.text in error_of(stream, way, 503), way
            assert stream.status == 200 or stream.headers.get("Retry-After") == "1"
        if how == "reload":
            wait_until(lambda: len(gateway.worker_pids() - before) == gateway.workers, ENDED_S)
            late = streams.enter_context(ask(gateway.url, CHAT, stream=False, wait_for_head=False))
            wait_until_counted(gateway, 1, 1)
        assert len(box.prompts) == 1
        box.go.set()
        assert finish(running) == 200
        if ended is None:
            assert finish(late) == 200
            wait_until_counted(gateway, 0, 0, 3)
        else:
            assert ended.result() == 0
    assert box.most == 1
