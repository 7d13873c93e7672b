"""Requests wait while limits and slots change, and tokens are withdrawn. The end of workers is in
tests/integration/test_sharing_changes.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from ollama_proxy.errors import TokenRevoked
from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import (
    FACES,
    SSE_FACES,
    TOKEN,
    Face,
    error_text,
    is_well_ended,
    last_error,
    start,
)
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.http_client import Answer, Stream
from tests.rig.local import LocalGateway

OTHER, LIMITED = "other-token-1", "token-with-limits"
CHAT = FACES["native chat"]
SINGLE = {**CHAT.body, "stream": False}


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
def gateway(box: WorkBox) -> Iterator[LocalGateway]:
    with LocalGateway(configured(box), coordinated=True) as running:
        yield running
        assert not running.events("internal_error")


def counts(gateway: LocalGateway) -> tuple[int, int]:
    """How many requests hold a slot, and how many wait for one."""
    status = gateway.coordinator.status()
    return len(status["running"]), len(status["waiting"])


def wait_until_counted(gateway: LocalGateway, running: int, waiting: int) -> None:
    wait_until(
        lambda: counts(gateway) == (running, waiting), 30, lambda: f"they are {counts(gateway)}"
    )


def hold(gateway: LocalGateway, streams: ExitStack, token: str = OTHER) -> Stream:
    """Another team's request, which has the slot."""
    wait_until_counted(gateway, 0, 0)  # a worker keeps a slot for a moment
    stream = streams.enter_context(gateway.start(CHAT.path, SINGLE, token=token))
    wait_until_counted(gateway, 1, 0)
    return stream


def wait_in(gateway: LocalGateway, streams: ExitStack, way: tuple[Face, bool]) -> Stream:
    """A request that waits, behind all others."""
    running, waiting = counts(gateway)
    stream = streams.enter_context(start(gateway, way[0], stream=way[1]))
    wait_until_counted(gateway, running, waiting + 1)
    return stream


def finish(stream: Stream) -> int:
    """The status of an answer that was read to its end."""
    stream.read_all()
    return stream.status


WAYS = [(face, stream) for face in FACES.values() for stream in (True, False)]


def error_of(stream: Stream, way: tuple[Face, bool], status: int) -> str:
    """The text of the error that ends it, be that a status or the last frame of a stream."""
    body = stream.read_all()
    if stream.status == 200:
        assert way[1] and way[0].path in {face.path for face in SSE_FACES.values()}
        return last_error(body, way[0])
    answer = Answer(stream.status, stream.headers, body, stream.complete)
    assert answer.status == status
    return error_text(answer, way[0])


def test_slots_change_while_requests_wait(gateway: LocalGateway, box: WorkBox) -> None:
    """More slots are used at once; fewer, as soon as enough of them are free."""
    box.go.clear()
    with ExitStack() as streams:
        found = [hold(gateway, streams)] + [
            wait_in(gateway, streams, (CHAT, False)) for _ in range(5)
        ]
        box.slots = 3
        gateway.apply(configured(box))
        wait_until_counted(gateway, 3, 3)
        wait_until(lambda: box.most == 3)
        box.slots = 1
        gateway.apply(configured(box))
        assert counts(gateway) == (3, 3)
        found[0].close()
        wait_until_counted(gateway, 2, 3)
        found[1].close()
        wait_until_counted(gateway, 1, 3)
        assert len(box.prompts) == 3
        box.clear()
        box.most = 0
        assert {finish(stream) for stream in found[2:]} == {200}
        wait_until_counted(gateway, 0, 0)
    assert box.most <= 1


def test_limits_change_at_run_time(gateway: LocalGateway, box: WorkBox) -> None:
    """A higher limit is there at once, and what was used counts against it; so is a lower one."""

    def use_up(count: int) -> list[int]:
        return [gateway.ask(CHAT.path, SINGLE, token=LIMITED).status for _ in range(count)]

    wait_for_minute(10)
    assert use_up(4) == [200, 200, 429, 429]
    gateway.apply(configured(box, {"requests_per_minute": 5}))
    assert use_up(5) == [200, 200, 200, 429, 429]
    gateway.apply(configured(box, {"requests_per_minute": 1}))
    assert use_up(1) == [429]
    gateway.apply(configured(box, {"requests_per_minute": 100, "concurrent": 1}))
    box.go.clear()
    with ExitStack() as streams:
        running = hold(gateway, streams, LIMITED)
        assert use_up(1) == [429]
        gateway.apply(configured(box, {"requests_per_minute": 100}))
        box.go.set()
        assert use_up(1) == [200]
        assert finish(running) == 200


def test_a_token_is_withdrawn_while_its_requests_wait(gateway: LocalGateway, box: WorkBox) -> None:
    """In every dialect; no server gets them, and those of others stay in the queue."""
    box.go.clear()
    with ExitStack() as streams:
        running = hold(gateway, streams)
        waiting = [(way, wait_in(gateway, streams, way)) for way in WAYS]
        own = streams.enter_context(gateway.start(CHAT.path, SINGLE, token=OTHER))
        wait_until_counted(gateway, 1, len(WAYS) + 1)
        gateway.apply(configured(box, tokens=[OTHER]))
        for way, stream in waiting:
            assert TokenRevoked.text in error_of(stream, way, TokenRevoked.status), way
        wait_until_counted(gateway, 1, 1)
        box.go.set()
        assert {finish(stream) for stream in (running, own)} == {200}
        wait_until_counted(gateway, 0, 0)
    assert len(box.prompts) == 2


def test_streams_that_wait_end_well_after_an_edit(gateway: LocalGateway, box: WorkBox) -> None:
    """An edit that has nothing to do with them disturbs nobody."""
    box.go.clear()
    with ExitStack() as streams:
        hold(gateway, streams)
        ways = [(face, True) for face in SSE_FACES.values()]
        waiting = [(way, wait_in(gateway, streams, way)) for way in ways]
        gateway.apply(configured(box))
        wait_until_counted(gateway, 1, len(ways))
        box.go.set()
        for way, stream in waiting:
            assert is_well_ended(stream.read_all(), way[0])
