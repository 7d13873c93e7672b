"""What all workers together never exceed, on one machine or on two with one Redis: the slots of a
box, and the limits of a token."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import pytest

from tests.rig.boxes import WorkBox, fleet_config, running
from tests.rig.calls import EMBEDDINGS, FACES, TOKEN
from tests.rig.coordinator import counts, join_coordinator, shared, wait_until_counted
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, encode_request
from tests.rig.redis_server import RedisServer

OTHER, COUNTED = "other-token-1", "token-with-a-limit"
SLOTS = (2, 3)
PASS, CROWD = 20, 1000
#: How many prompts each call is.
CALLS: list[tuple[str, dict[str, Any], int]] = [
    *(
        (face.path, face.body | {"stream": stream}, 1)
        for face in FACES.values()
        for stream in (True, False)
    ),
    *((face.path, face.body, 1) for face in EMBEDDINGS.values()),
    *(
        (FACES["openai chat"].path, FACES["openai chat"].body | {"n": 4, "stream": stream}, 4)
        for stream in (True, False)
    ),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b", "c"], "stream": False}, 3),
]


@pytest.fixture(scope="module")
def boxes() -> Iterator[tuple[WorkBox, ...]]:
    made = tuple(
        WorkBox(f"box{number}", ["m"], slots=slots) for number, slots in enumerate(SLOTS, 1)
    )
    with running(*made):
        yield made


@pytest.fixture(scope="module", params=["one machine", "two machines"])
def machines(request: pytest.FixtureRequest, boxes: tuple[WorkBox, ...]) -> Iterator[list[Gateway]]:
    """Gateways with two workers each; two of them have state directories of
    their own, and one Redis."""
    limited = {"name": "counted", "token": COUNTED, "limits": {"requests_per_minute": PASS}}
    queue = {"max_waiting": 2 * CROWD}
    config = fleet_config(
        TOKEN, boxes, auth={"generate_tokens": [TOKEN, OTHER, limited]}, queue=queue
    )
    with ExitStack() as opened:
        if request.param == "one machine":
            yield [opened.enter_context(Gateway(config))]
            return
        redis = opened.enter_context(RedisServer())
        gateways = [
            opened.enter_context(Gateway(config | {"state": {"url": redis.url}})) for _ in range(2)
        ]
        for gateway in gateways:
            join_coordinator(gateway, TOKEN)
        wait_until(lambda: {shared(each)["machines"] for each in gateways} == {2}, 10)
        yield gateways


@pytest.fixture
def gateways(machines: list[Gateway], boxes: tuple[WorkBox, ...]) -> Iterator[list[Gateway]]:
    """The gateways, which hold nothing before and after."""
    for box in boxes:
        box.takes_s = 0.0
        box.clear()
    yield machines
    for gateway in machines:
        wait_until_counted(gateway, 0, 0, 3)
        assert "Traceback" not in gateway.output()


def test_boxes_never_get_more_than_their_slots(
    gateways: list[Gateway], boxes: tuple[WorkBox, ...]
) -> None:
    """Every dialect at once, several answers to one request and embeddings among them, over two
    workers each. A machine that is so busy that a coordinator does not answer for 2 s gets a second
    and a third chance: then each worker grants its share, and the documented bound is higher."""
    calls = CALLS * 6
    random.Random(16).shuffle(calls)

    def ask(gateway: Gateway, call: tuple[str, dict[str, Any], int]) -> Answer:
        return gateway.ask(call[0], call[1], timeout=60)

    def count_losses() -> int:
        events = [line["event"] for gateway in gateways for line in gateway.log_lines("events")]
        return sum(event.endswith("_unavailable") for event in events)

    for _ in range(3):
        before = count_losses()
        for box in boxes:
            box.clear()
            box.takes_s = 0.05
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, cycle(gateways), calls))
        assert {answer.status for answer in answers} == {200}
        assert sum(len(box.prompts) for box in boxes) == sum(prompts for _, _, prompts in calls)
        most = tuple(box.most for box in boxes)
        workers = sum(gateway.workers for gateway in gateways)
        assert all(number < slots + workers for number, slots in zip(most, SLOTS, strict=True)), (
            most
        )
        if count_losses() == before:
            break
    assert (most, count_losses() - before) == (SLOTS, 0)


def test_exactly_as_many_requests_pass_as_a_limit_allows(
    gateways: list[Gateway], boxes: tuple[WorkBox, ...]
) -> None:
    """Three times as many come at the same moment, in every dialect, to two workers each."""
    ways = [(face, stream) for face in FACES.values() for stream in (True, False)]
    barrier = threading.Barrier(3 * PASS)

    def ask(number: int) -> Answer:
        face, stream = ways[number // len(gateways) % len(ways)]
        barrier.wait()
        return gateways[number % len(gateways)].ask(
            face.path, face.body | {"stream": stream}, token=COUNTED
        )

    wait_for_minute(10)
    with ThreadPoolExecutor(3 * PASS) as pool:
        answers = list(pool.map(ask, range(3 * PASS)))
    assert Counter(answer.status for answer in answers) == {200: PASS, 429: 2 * PASS}
    assert sum(len(box.prompts) for box in boxes) == PASS
    assert all(
        int(answer.headers.get("Retry-After") or 0) >= 1
        for answer in answers
        if answer.status == 429
    )


@pytest.mark.parametrize("machines", ["one machine"], indirect=True)
def test_a_thousand_requests_wait_and_are_served(
    gateways: list[Gateway], boxes: tuple[WorkBox, ...]
) -> None:
    (gateway,) = gateways
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
