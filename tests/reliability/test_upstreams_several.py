"""Some of several boxes fail: the others answer, nothing is done twice, and
no storm comes on top."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.reliability.asked import (
    CHAT,
    DIALECTS,
    OPENAI_CHAT,
    WAYS,
    Asked,
    Fault,
    ask,
    ask_all,
    down,
    encoded,
    failing_models,
    prompts,
    script_all,
    wait_until_asked,
    wait_until_forgiven,
    wait_until_usable,
)
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import Rig, Row, allowed, nginx_decides
from tests.rig import NDJSON
from tests.rig.calls import CHAT_LINE, is_well_ended
from tests.rig.calls import MESSAGES as SAID
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, Cut, FaultUpstream, Head, Json, Wait, WaitFor, Whole
from tests.rig.fixtures import module_fixture

DONE = {**CHAT_LINE, "done": True, "done_reason": "stop"}


rig = module_fixture(lambda: Rig(boxes=4))


def arrivals(row: Row) -> list[int]:
    """How many prompts have reached each box."""
    return [prompts(box) for box in row.rig.boxes]


def fail(row: Row, fault: Fault, count: int) -> None:
    """The first boxes fail from now on; nothing has arrived anywhere."""
    for box in row.rig.boxes:
        box.clear()
    for box in row.rig.boxes[:count]:
        script_all(box, fault)


def asked_again(row: Row) -> list[Asked]:
    """The calls that another box answered when the first one was gone: none if a health
    check noticed that before."""
    one, *others = row.rig.boxes
    wait_until_usable(row, *row.rig.boxes)
    wait_until_asked(row, one)
    with down(row, one):
        calls = ask_all(row, WAYS * 3)
        assert {call.status for call in calls} == {200}
        assert all(
            is_well_ended(call.answer.body, call.way.face) for call in calls if call.way.stream
        )
        again = [call for call in calls if call.attempts]
        assert all(call.attempts.startswith("box1: upstream_unreachable, box") for call in again)
        wait_until_usable(row, *others)
    return again


def test_u1_connection_refused(row: Row) -> None:
    """Another box takes the prompt, whoever refuses it is no longer asked, and where all
    do it is said at once."""
    row.allow(503)
    again: list[Asked] = []
    wait_until(
        lambda: again.extend(asked_again(row)) or again,
        60,
        "the health checks are always the first to notice",
    )
    row.measured("with another attempt", max(call.seconds for call in again) * 1000, "ms")
    with down(row, *row.rig.boxes):
        for call in ask_all(row, WAYS):
            assert (call.status, call.seconds < allowed(1)) == (503, True), call
            assert int(call.answer.headers.get("Retry-After") or 0) >= 1
            assert call.error().startswith("Failed to connect to Ollama service")
            assert row.record(call.id)["error"] == "upstream_unreachable"
        wait_until_usable(row)


def failure(status: int) -> Fault:
    """An error in Ollama's shape."""
    return lambda _: [Json({"error": "no can do"}, status, {"Retry-After": "7"})]


@pytest.mark.parametrize("status", [500, 502, 504])
def test_u10_failure_before_the_first_byte(row: Row, status: int) -> None:
    """It is tried once more, elsewhere. Where that fails too, status and text
    are the upstream's own."""
    row.allow(status)
    fill_the_store(row)
    fail(row, failure(status), 1)
    for box in row.rig.boxes[1:]:
        # So long that the next request in this worker goes to a box that has nothing to do.
        box.script("/api/chat", [Wait(0.3), Json(DONE)])
    calls: list[Asked] = []

    def was_tried_again() -> bool:
        calls.extend(ask_all(row, DIALECTS * 3))
        return any(call.attempts.startswith(f"box1: {status}, box") for call in calls)

    wait_until(was_tried_again, 15, lambda: f"nobody was tried again: {calls}")
    assert {call.status for call in calls} == {200}
    fill_the_store(row)
    fail(row, failure(status), 4)
    calls = [ask(row, way) for way in DIALECTS]
    assert {(call.status, call.error()) for call in calls} == {(status, "no can do")}
    assert sum(arrivals(row)) == 2 * len(calls)


def fill_the_store(row: Row) -> None:
    """Enough requests that the workers may try a few more often than once, and that no box
    is known for failures."""
    for box in row.rig.boxes:
        box.clear()
    ask_all(row, [CHAT] * 100, at_once=8)
    wait_until_forgiven(row)


@nginx_decides
@pytest.mark.parametrize("status", [429, 503])
def test_u11_busy(row: Row, status: int) -> None:
    """Another box answers, and no box is given up for it. Where all are busy the client hears when
    to come back. What is the request's fault is nobody else's work."""
    row.allow(502, 503)
    fill_the_store(row)
    fail(row, failure(status), 2)
    assert {ask(row, way).status for way in DIALECTS} == {200}
    fail(row, failure(status), 4)
    for call in [ask(row, way) for way in DIALECTS * 3]:
        assert (call.status, call.error(), call.answer.headers.get("Retry-After")) == (
            status,
            "no can do",
            "7",
        )
    for refusal in (400, 401, 403, 404, 413):
        fail(row, failure(refusal), 4)
        calls = [ask(row, way) for way in DIALECTS * 2]
        assert {call.status for call in calls} == {502 if refusal == 401 else refusal}
        assert sum(arrivals(row)) == len(calls)
    assert failing_models(row) == set()
    wait_until_usable(row, *row.rig.boxes, seconds=1)
    fail(row, failure(status), 0)
    assert {call.status for call in ask_all(row, DIALECTS * 8)} == {200}


#: Enough that a tenth of them is more than the retries that are allowed at once.
REQUESTS = 500 if BOTH_DOORS else 200
FAILING: dict[str, Fault] = {
    "500": failure(500),
    "502 page": lambda _: [Whole(b"<html>Bad gateway</html>", 502, {"Content-Type": "text/html"})],
    "503": failure(503),
    "429": failure(429),
    "cut": lambda _: [Cut()],
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAILING)
def test_u13_half_of_the_boxes_fail(row: Row, fault: str) -> None:
    """Many requests cause at most a fifth more; a box that fails is given up, and gets
    one trial now and then."""
    row.allow(500, 502, 503)
    fail(row, FAILING[fault], 2)
    calls = ask_all(row, [CHAT, OPENAI_CHAT] * (REQUESTS // 2), at_once=8)
    statuses = Counter(call.status for call in calls)
    ratio = sum(arrivals(row)) / REQUESTS
    assert ratio <= 1.2, (arrivals(row), statuses)
    row.measured(f"attempts for each request, {fault}", ratio, "")
    if fault not in ("429", "503"):
        # Each worker gives up a box after a few failures, and then lets one
        # trial through now and then.
        assert sum(arrivals(row)[:2]) <= 60, arrivals(row)
        assert statuses[200] >= 0.9 * REQUESTS, statuses
    fail(row, FAILING[fault], 0)
    wait_until_forgiven(row)


@contextmanager
def flapping(box: FaultUpstream, period_s: float) -> Iterator[None]:
    """It goes and comes back, again and again."""
    over = threading.Event()

    def flap() -> None:
        while not over.is_set():
            box.refuse()
            over.wait(period_s / 2)
            box.restart()
            over.wait(period_s / 2)

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def lost(row: Row, calls: Sequence[Asked], box: str) -> int:
    """How many failed: only such as this box had when it went, which may
    have been executed there."""
    failed = [call for call in calls if call.status != 200]
    for call in failed:
        line = row.record(call.id)
        assert (call.status, line["upstream"], line["error"]) == (502, box, "upstream_cut"), line
    return len(failed)


@pytest.mark.slow
def test_u15_box_flaps(row: Row) -> None:
    """No request is lost but what it was just answering, and the log stays short."""
    row.allow(502)
    flaky = row.rig.boxes[0]
    before = len(row.gateway.log_lines("events"))
    calls: list[Asked] = []
    with flapping(flaky, 1.6), ThreadPoolExecutor(3) as pool:
        over = time.monotonic() + 7
        while time.monotonic() < over:
            calls += pool.map(lambda _: ask(row), range(12))
            time.sleep(0.1)  # the pace of the clients
    wait_until_usable(row, *row.rig.boxes)
    count = lost(row, calls, "box1")
    assert count <= 3 * 5
    said = Counter(line["event"] for line in row.gateway.log_lines("events")[before:])
    assert said["upstream_up"] + said["upstream_down"] <= 2 * 6
    assert said.total() - said["upstream_error"] <= 14, said
    row.measured("lost with the box", count, f"of {len(calls)}")


@pytest.mark.slow
def test_u25_box_dies_under_load(row: Row) -> None:
    """Of 50 streams those on it end with an error, all others go on; of new requests
    only what it had is lost."""
    row.allow(502)
    wait_until_usable(row, *row.rig.boxes)
    dying = row.rig.boxes[0]
    wait_until_asked(row, dying)
    before = prompts(dying)
    go_on = threading.Event()
    for box in row.rig.boxes:
        box.script(
            "/api/chat",
            [
                Head(200, NDJSON),
                Chunk(encoded(CHAT_LINE)),
                WaitFor(go_on, 30),
                Chunk(encoded(DONE)),
            ],
        )
    with ExitStack() as stack:
        body = {"model": "m", "messages": SAID}
        streams = [stack.enter_context(row.open("/api/chat", body)) for _ in range(50)]
        assert all(stream.read_some() for stream in streams)
        victims = prompts(dying) - before
        assert 2 <= victims <= 40
        for box in row.rig.boxes:
            box.clear()
        with ThreadPoolExecutor(6) as pool:
            asking = [pool.submit(ask, row) for _ in range(300)]
            wait_until(lambda: sum(arrivals(row)) > 30)
            dying.refuse()
            calls = [each.result() for each in asking]
        count = lost(row, calls, "box1")
        assert count <= 6
        go_on.set()
        ends = [stream.read_all() for stream in streams]
    assert sum(end.endswith(encoded(DONE)) for end in ends) == 50 - victims
    assert sum(b'"error"' in end for end in ends) == victims
    row.measured("lost beside its streams", count, f"of {len(calls)}")
    dying.restart()
    wait_until_usable(row, *row.rig.boxes)
