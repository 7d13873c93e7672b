"""A hundred clients that leave at any moment: every server's place is given back, wherever the requests were."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.golden.face import TOKEN, warm
from tests.rig import NDJSON, SeenRequest
from tests.rig.calls import CHAT_LINE
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import MODEL, Cut, FaultUpstream, Head, Json, Lines, Script, Wait, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, open_stream, request
from tests.rig.leaks import no_leaks

CLIENTS, STAY_S, SILENT_S = 100, 0.6, 20
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
#: What clients ask: several answers at once, single ones, and work on all servers.
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", CHAT | {"n": 3, "stream": True}),
    ("/v1/chat/completions", CHAT | {"n": 3}),
    ("/v1/completions", {"model": MODEL, "prompt": ["a", "b"], "stream": True}),
    ("/api/chat", CHAT),
    ("/api/pull", {"model": MODEL}),
    ("/api/pull", {"model": MODEL, "stream": False}),
    ("/api/copy", {"source": MODEL, "destination": "n"}),
)
PULLING = {"status": "pulling manifest"}


class Moody(FaultUpstream):
    """Answers soon, late, never, in part, or that it is busy."""

    def answer(self, request: SeenRequest) -> Script:
        if request.path in ("/api/tags", "/api/ps", "/api/version"):
            return super().answer(request)
        line = PULLING if request.path == "/api/pull" else CHAT_LINE
        begun = (Head(200, NDJSON), Lines([line]))
        moods: tuple[Script, ...] = (
            [WaitForPeerClose(SILENT_S)],
            [*begun, WaitForPeerClose(SILENT_S)],
            [*begun, Wait(0.2), Cut()],
            [Wait(0.2), Json({"error": "busy"}, 503)],
            [Wait(0.1), *super().answer(request)],
        )
        return random.choice(moods)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One worker in front of three of them; at the end it may hold nothing."""
    with ExitStack() as stack:
        boxes = [stack.enter_context(Moody()) for _ in range(3)]
        upstreams = [{"name": f"box{number}", "base_url": box.url} for number, box in enumerate(boxes, 1)]
        config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams}
        running = stack.enter_context(Gateway(config, workers=1))
        warm(running)
        with no_leaks(running, token=TOKEN, idle=3 * CLIENTS):
            yield running


def come_and_go(gateway: Gateway, number: int) -> None:
    """One client, which reads what there is and leaves in the middle of it, or before there is anything."""
    chance = random.Random(number)
    path, body = chance.choice(ASKED)
    leaves_at = time.monotonic() + chance.uniform(0, STAY_S)
    stream = open_stream(gateway.url, "POST", path, body, bearer(TOKEN), wait_for_head=False)
    with suppress(TimeoutError, ConnectionError):
        while stream.read_some(max(0.0, leaves_at - time.monotonic())):
            pass
    stream.close(reset=chance.random() < 0.5)


def busy(gateway: Gateway) -> dict[str, int]:
    """How many requests each server has, by the gateway's own count."""
    document = request(gateway.url, "GET", "/health", headers=bearer(TOKEN)).json()
    return {name: state["in_flight"] for name, state in document["upstreams"].items()}


def test_a_storm_of_clients_that_leave_keeps_no_place(gateway: Gateway) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: come_and_go(gateway, number), range(CLIENTS)))
    wait_until(lambda: not any(busy(gateway).values()), 5, lambda: f"in flight: {busy(gateway)}")
    assert busy(gateway).keys() == {"box1", "box2", "box3"}
    assert "Traceback" not in gateway.output()
