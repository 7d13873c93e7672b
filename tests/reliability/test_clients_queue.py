"""Requests that wait for a slot, that nobody lets wait, and that their own limit refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from ollama_proxy.errors import QueueFull, QueueTimeout
from tests.reliability.asked import SINGLES, STREAMS, WAYS, Asked, Way, ask, ask_all
from tests.reliability.rig import TOKEN, Rig, Row, allowed
from tests.rig.boxes import WorkBox
from tests.rig.calls import FACES
from tests.rig.coordinator import wait_until_counted
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_until
from tests.rig.edits import edit
from tests.rig.http_client import bearer, encode_request
from tests.rig.rules import check_shape

GREEDY, OTHERS = "token-of-a-greedy-team", "token-of-another-team"
SLOTS, PLACES, LONGEST_S = 4, 5, 1.0
#: The greedy token's own limit, below the slots; and milliseconds until it refuses.
AT_ONCE, REFUSED_MS = 3, allowed(100)
HEARTBEAT_S = 0.3
#: Seconds in which a client that has left is out of the queue.
OUT_S = allowed(1)
CHAT = FACES["native chat"]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    tokens = [
        {"name": "team", "token": TOKEN},
        {"name": "greedy", "token": GREEDY, "limits": {"concurrent": AT_ONCE}},
        {"name": "others", "token": OTHERS},
    ]
    config = {
        "auth": {"generate_tokens": tokens},
        "queue": {"max_waiting": PLACES, "max_wait_s": 60},
        "stream": {"heartbeat_s": HEARTBEAT_S},
    }
    with (
        WorkBox("box1", ["m"], slots=SLOTS) as box,
        Rig(
            config=config, workers=2, boxes=[box], upstream={"concurrency": SLOTS}, shares=True
        ) as running,
    ):
        yield running


@contextmanager
def every_slot_taken(row: Row) -> Iterator[None]:
    """Another team has all slots until the block ends; then it gets its answers."""
    row.upstream.go.clear()
    with ExitStack() as streams:
        body = {**CHAT.body, "stream": False}
        open_streams = [
            streams.enter_context(row.open(CHAT.path, body, token=OTHERS, wait_for_head=False))
            for _ in range(SLOTS)
        ]
        wait_until_counted(row.gateway, SLOTS, 0)
        yield
        row.upstream.go.set()
        for stream in open_streams:
            stream.read_all()
            assert stream.status == 200


# C5


def leave(row: Row, way: Way, *, after_head: bool) -> float:
    """Lets a request wait and hangs up; returns in how many seconds it was out of the queue."""
    face, stream = way
    id = row.new_id()
    with row.open(
        face.path, {**face.body, "stream": stream}, id=id, wait_for_head=False
    ) as waiting:
        wait_until_counted(row.gateway, SLOTS, 1)
        if after_head:
            assert waiting.read_head()[0] == 200
    left = time.monotonic()
    wait_until_counted(row.gateway, SLOTS, 0, OUT_S)
    took_s = time.monotonic() - left
    line = row.record(id)
    assert (line["state"], line["upstream"]) == ("client_gone", None), line
    row.rules.noted.admitted[id] = 1
    return took_s


def test_c5_client_leaves_the_queue(row: Row) -> None:
    """Before the head of its answer, and after it, which streams of server-sent
    events get while they wait."""
    spoken = [way for way in STREAMS if way.face.stream.heartbeat]
    with every_slot_taken(row):
        took_s = [leave(row, way, after_head=False) for way in WAYS]
        took_s += [leave(row, way, after_head=True) for way in spoken]
    assert len(row.upstream.prompts) == SLOTS
    row.measured("out of the queue within", max(took_s) * 1000, "ms")


# C12


def test_c12_one_token_opens_200_streams(row: Row) -> None:
    """A limit of its own refuses what is too much; another team finds the slots that are left."""
    row.upstream.go.clear()
    visitors = [Visitor(stream_of_greedy(row)) for _ in range(200)]
    with Crowd(row.port, visitors) as crowd:
        wait_until(
            lambda: len(crowd.over) == len(visitors) - AT_ONCE,
            10,
            lambda: f"{len(crowd.over)} are refused",
        )
        wait_until_counted(row.gateway, AT_ONCE, 0)
        refused = crowd.over
        row.upstream.go.set()
        other = ask(row, Way(CHAT, False), bearer(OTHERS))
        assert (other.status, other.answer.headers.get("X-Ollama-Proxy-Queue")) == (200, None)
        crowd.wait_over(10)
    for answer in [visitor.answer() for visitor in refused]:
        check_shape(answer, "/v1/chat/completions")
        assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(answer.headers.get("Retry-After") or 0) >= 1
    seen_ms = [(visitor.over_at - visitor.began_at) * 1000 for visitor in refused]
    # All of them come at once, and wait for each other before any worker has read them.
    own_ms = [
        line["total_ms"] for line in row.rules.access_lines('"greedy"') if line["status"] == 429
    ]
    assert sorted(own_ms)[int(0.95 * len(own_ms))] < REFUSED_MS and max(seen_ms) < 10 * REFUSED_MS
    row.measured("refused within", max(own_ms), "ms")
    row.measured("as 200 clients at once see it", max(seen_ms), "ms")


def stream_of_greedy(row: Row) -> bytes:
    """The bytes of a request."""
    face = FACES["openai chat"]
    headers = {**bearer(GREEDY), "X-Request-Id": row.new_id()}
    return encode_request(
        f"127.0.0.1:{row.port}", "POST", face.path, {**face.body, "stream": True}, headers
    )


# C13


def test_c13_queue_is_full(row: Row) -> None:
    """In every dialect: refused at once, and those that wait are served."""
    row.allow(503)
    with every_slot_taken(row), ThreadPoolExecutor(PLACES + len(WAYS)) as pool:
        waiting = [pool.submit(ask, row, way) for way in SINGLES[:PLACES]]
        wait_until_counted(row.gateway, SLOTS, PLACES)
        refused: list[Asked] = []
        while len(refused) < 50 - PLACES:
            refused += pool.map(lambda way: ask(row, way), WAYS)
        wait_until_counted(row.gateway, SLOTS, PLACES)
        for asked in refused:
            assert QueueFull.text in asked.error(), asked
            assert (asked.status, int(asked.answer.headers.get("Retry-After") or 0) >= 1) == (
                503,
                True,
            ), asked
            assert asked.seconds < OUT_S, asked
        row.upstream.go.set()
        assert [each.result(20).status for each in waiting] == [200] * PLACES
    assert len(row.upstream.prompts) == SLOTS + PLACES
    row.measured("refused within", max(asked.seconds for asked in refused) * 1000, "ms")


# C14


def test_c14_queue_wait_is_too_long(row: Row) -> None:
    """In every dialect: a status, or the last frame of a stream that has its head already."""
    row.allow(503)
    edit(row.gateway, row.rig.configured(queue={"max_waiting": PLACES, "max_wait_s": LONGEST_S}))
    try:
        with every_slot_taken(row):
            refused = ask_all(row, WAYS, at_once=PLACES)
        for asked in refused:
            assert QueueTimeout.text in asked.error(), asked
            assert asked.status == 200 or int(asked.answer.headers.get("Retry-After") or 0) >= 1, (
                asked
            )
            assert LONGEST_S - 0.1 < asked.seconds < LONGEST_S + allowed(2), asked
        assert len(row.upstream.prompts) == SLOTS
        row.measured("refused after", max(asked.seconds for asked in refused), "s")
    finally:
        row.rig.restore_configuration()
