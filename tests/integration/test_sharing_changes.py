"""Requests wait while the gateway drains and reloads, limits and slots change, and
tokens are withdrawn."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from ollama_proxy.errors import ShuttingDown, TokenRevoked
from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import (
    FACES,
    SSE_FACES,
    TOKEN,
    Face,
    ask,
    error_text,
    is_well_ended,
    last_error,
)
from tests.rig.coordinator import counts, join_coordinator, wait_until_counted
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.edits import FOLLOWED_S, edit
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, open_stream

OTHER, LIMITED = "other-token-1", "token-with-limits"
CHAT = FACES["native chat"]
SINGLE = {**CHAT.body, "stream": False}
#: More than a drain and a start of workers takes.
ENDED_S = 20.0


box = function_fixture(lambda: WorkBox("box1", ["m"], slots=1))


def configured(
    box: WorkBox, limits: dict[str, Any] | None = None, tokens: Sequence[str] = (TOKEN, OTHER)
) -> Any:
    """A configuration with a token that has limits."""
    limited = {"name": "limited", "token": LIMITED, "limits": limits or {"requests_per_minute": 2}}
    return fleet_config(
        TOKEN, [box], auth={"generate_tokens": [*tokens, limited]}, stream={"heartbeat_s": 0.2}
    )


@pytest.fixture
def gateway(box: WorkBox) -> Iterator[Gateway]:
    with Gateway(configured(box)) as running:
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


def test_slots_change_while_requests_wait(gateway: Gateway, box: WorkBox) -> None:
    """More slots are used at once; fewer, as soon as enough of them are free."""
    box.go.clear()
    with ExitStack() as streams:
        found = [hold(gateway, streams)] + [
            wait_in(gateway, streams, (CHAT, False)) for _ in range(5)
        ]
        box.slots = 3
        edit(gateway, configured(box))
        wait_until_counted(gateway, 3, 3, FOLLOWED_S)
        wait_until(lambda: box.most == 3, 10)
        box.slots = 1
        edit(gateway, configured(box))
        assert counts(gateway) == (3, 3)
        found[0].close()
        wait_until_counted(gateway, 2, 3)
        found[1].close()
        wait_until_counted(gateway, 1, 3)
        assert len(box.prompts) == 3
        box.clear()
        box.most = 0
        assert {finish(stream) for stream in found[2:]} == {200}
        wait_until_counted(gateway, 0, 0, 3)
    assert box.most <= 1


def test_limits_change_at_run_time(gateway: Gateway, box: WorkBox) -> None:
    """A higher limit is there at once, and what was used counts against it; so is a lower one."""

    def use_up(count: int) -> list[int]:
        return [gateway.ask(CHAT.path, SINGLE, token=LIMITED).status for _ in range(count)]

    wait_for_minute(15)
    assert use_up(4) == [200, 200, 429, 429]
    edit(gateway, configured(box, {"requests_per_minute": 5}))
    assert use_up(5) == [200, 200, 200, 429, 429]
    edit(gateway, configured(box, {"requests_per_minute": 1}))
    assert use_up(1) == [429]
    edit(gateway, configured(box, {"requests_per_minute": 100, "concurrent": 1}))
    box.go.clear()
    with ExitStack() as streams:
        running = hold(gateway, streams, LIMITED)
        assert use_up(1) == [429]
        edit(gateway, configured(box, {"requests_per_minute": 100}))
        box.go.set()
        assert use_up(1) == [200]
        assert finish(running) == 200


def test_a_token_is_withdrawn_while_its_requests_wait(gateway: Gateway, box: WorkBox) -> None:
    """In every dialect; no server gets them, and those of others stay in the queue."""
    box.go.clear()
    with ExitStack() as streams:
        running = hold(gateway, streams)
        waiting = [(way, wait_in(gateway, streams, way)) for way in WAYS]
        own = streams.enter_context(
            open_stream(gateway.url, "POST", CHAT.path, SINGLE, bearer(OTHER), wait_for_head=False)
        )
        wait_until_counted(gateway, 1, len(WAYS) + 1)
        gateway.write_config(configured(box, tokens=[OTHER]))
        for way, stream in waiting:
            assert TokenRevoked.text in error_of(stream, way, TokenRevoked.status), way
        wait_until_counted(gateway, 1, 1, 3)
        box.go.set()
        assert {finish(stream) for stream in (running, own)} == {200}
        wait_until_counted(gateway, 0, 0, 3)
    assert len(box.prompts) == 2


def test_streams_that_wait_end_well_after_an_edit(gateway: Gateway, box: WorkBox) -> None:
    """An edit that has nothing to do with them disturbs nobody."""
    box.go.clear()
    with ExitStack() as streams:
        hold(gateway, streams)
        ways = [(face, True) for face in SSE_FACES.values()]
        waiting = [(way, wait_in(gateway, streams, way)) for way in ways]
        edit(gateway, configured(box))
        wait_until_counted(gateway, 1, len(ways))
        box.go.set()
        for way, stream in waiting:
            assert is_well_ended(stream.read_all(), way[0])
