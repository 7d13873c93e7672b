"""What all workers together never exceed: the slots of a box, and the limits of a token."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.rig.boxes import WorkBox, fleet_config, running
from tests.rig.calls import EMBEDDINGS, FACES, TOKEN
from tests.rig.coordinator import counts, wait_until_counted
from tests.rig.crowd import Crowd, Visitor
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, encode_request

OTHER, COUNTED = "other-token-1", "token-with-a-limit"
SLOTS = (2, 3)
PASS, CROWD = 20, 1000
#: How many prompts each call is.
CALLS: list[tuple[str, dict[str, Any], int]] = [
    *((face.path, face.body | {"stream": stream}, 1) for face in FACES.values() for stream in (True, False)),
    *((face.path, face.body, 1) for face in EMBEDDINGS.values()),
    *(
        (FACES["openai chat"].path, FACES["openai chat"].body | {"n": 4, "stream": stream}, 4)
        for stream in (True, False)
    ),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b", "c"], "stream": False}, 3),
]


@pytest.fixture(scope="module")
def boxes() -> Iterator[tuple[WorkBox, ...]]:
    made = tuple(WorkBox(f"box{number}", ["m"], slots=slots) for number, slots in enumerate(SLOTS, 1))
    with running(*made):
        yield made


@pytest.fixture(scope="module")
def shared_gateway(boxes: tuple[WorkBox, ...]) -> Iterator[Gateway]:
    limited = {"name": "counted", "token": COUNTED, "limits": {"requests_per_minute": PASS}}
    queue = {"max_waiting": 2 * CROWD}
    config = fleet_config(TOKEN, boxes, auth={"generate_tokens": [TOKEN, OTHER, limited]}, queue=queue)
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared_gateway: Gateway, boxes: tuple[WorkBox, ...]) -> Iterator[Gateway]:
    """The gateway, which holds nothing before and after."""
    for box in boxes:
        box.takes_s = 0.0
        box.clear()
    yield shared_gateway
    wait_until_counted(shared_gateway, 0, 0, 3)
    assert "Traceback" not in shared_gateway.output()


def test_boxes_never_get_more_than_their_slots(gateway: Gateway, boxes: tuple[WorkBox, ...]) -> None:
    """Every dialect at once, several answers to one request and embeddings among them, over two workers."""
    calls = CALLS * 6
    random.Random(16).shuffle(calls)
    for box in boxes:
        box.takes_s = 0.05

    def ask(call: tuple[str, dict[str, Any], int]) -> Answer:
        return gateway.ask(call[0], call[1], timeout=60)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, calls))
    assert {answer.status for answer in answers} == {200}
    assert sum(len(box.prompts) for box in boxes) == sum(prompts for _, _, prompts in calls)
    assert tuple(box.most for box in boxes) == SLOTS


def test_exactly_as_many_requests_pass_as_a_limit_allows(gateway: Gateway, boxes: tuple[WorkBox, ...]) -> None:
    """Three times as many come at the same moment, in every dialect, to two workers."""
    ways = [(face, stream) for face in FACES.values() for stream in (True, False)]
    barrier = threading.Barrier(3 * PASS)

    def ask(number: int) -> Answer:
        face, stream = ways[number % len(ways)]
        barrier.wait()
        return gateway.ask(face.path, face.body | {"stream": stream}, token=COUNTED)

    with ThreadPoolExecutor(3 * PASS) as pool:
        answers = list(pool.map(ask, range(3 * PASS)))
    assert Counter(answer.status for answer in answers) == {200: PASS, 429: 2 * PASS}
    assert sum(len(box.prompts) for box in boxes) == PASS
    assert all(int(answer.headers.get("Retry-After") or 0) >= 1 for answer in answers if answer.status == 429)


def test_a_thousand_requests_wait_and_are_served(gateway: Gateway, boxes: tuple[WorkBox, ...]) -> None:
    for box in boxes:
        box.go.clear()
    face = FACES["native chat"]
    data = encode_request("gw", "POST", face.path, face.body | {"stream": False}, bearer(TOKEN))
    visitors = [Visitor(data, comes_s=number / 500) for number in range(CROWD + sum(SLOTS))]
    with Crowd(gateway.port, visitors) as crowd:
        wait_until_counted(gateway, sum(SLOTS), CROWD, 30)
        for box in boxes:
            box.go.set()
        crowd.wait_over(60)
    assert Counter(visitor.answer().status for visitor in visitors) == {200: len(visitors)}
    assert tuple(box.most for box in boxes) == SLOTS
    assert counts(gateway) == (0, 0)
