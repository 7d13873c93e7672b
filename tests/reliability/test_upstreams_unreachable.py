"""Upstreams that can't be reached, or hang: others answer in their place, nobody waits for
them, and they come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.reliability.asked import CHAT, WAYS, ask, ask_all, wait_until_asked, wait_until_usable
from tests.reliability.rig import TOKEN, Rig, Row, allowed
from tests.rig.boxes import Box, black_hole
from tests.rig.calls import CHAT_LINE, is_well_ended
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import CloseAfter, FaultUpstream, Json, WaitForPeerClose
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import request

CONNECT_S = 0.5
DONE = {**CHAT_LINE, "done": True}


rig = module_fixture(lambda: Rig(boxes=2, upstream={"timeouts": {"connect_s": CONNECT_S}}))


@contextmanager
def silent(*boxes: FaultUpstream) -> Iterator[None]:
    """Nothing comes back from their ports meanwhile, not even a refusal."""
    with ExitStack() as stack:
        for box in boxes:
            stack.callback(box.restart)
            box.refuse()
            stack.enter_context(black_hole(box.port))
        yield


@contextmanager
def refusing(*boxes: FaultUpstream) -> Iterator[None]:
    """They take no connections meanwhile."""
    with ExitStack() as stack:
        for box in boxes:
            stack.callback(box.restart)
            box.refuse()
        yield


def asked_again(row: Row) -> list[float]:
    """Seconds of the calls that the other box answered: none if a health check found out first."""
    one, two = row.rig.boxes
    wait_until_usable(row, one, two)
    wait_until_asked(row, one)
    with silent(one):
        calls = ask_all(row, WAYS * 2)
        assert {call.status for call in calls} == {200}
        assert all(
            is_well_ended(call.answer.body, call.way.face) for call in calls if call.way.stream
        )
        wait_until_usable(row, two)
        assert {call.attempts for call in ask_all(row, WAYS)} == {""}
    wait_until_usable(row, one, two)
    return [
        call.seconds
        for call in calls
        if call.attempts.startswith("box1: upstream_unreachable, box2: ok")
    ]


def test_u2_black_hole(row: Row) -> None:
    """The limit for connecting is all that it costs, once; then it counts as down, and
    others are asked at once."""
    again: list[float] = []
    wait_until(
        lambda: again.extend(asked_again(row)) or again,
        60,
        "the health checks are always the first to notice",
    )
    assert max(again) < CONNECT_S + allowed(1)
    row.measured("with the limit for connecting and another attempt", max(again), "s")


#: A gateway that has these boxes and no others, as the probe's upstream would keep it ready.
alone = function_fixture(
    lambda rig: Gateway(
        {"auth": {"generate_tokens": [TOKEN]}, "upstreams": rig.configured()["upstreams"][:2]},
        workers=1,
    )
)


GONE = {"refusing": refusing, "silent": silent}


@pytest.mark.slow
@pytest.mark.parametrize("how", GONE)
def test_u14_all_are_down(alone: Gateway, row: Row, how: str) -> None:
    """503 at the latest after the limit for connecting; once it is known at once, and when to come
    back. Alive, but not ready; it mends by itself."""
    row.allow(503)
    row.allow_other_connections(alone.workers * len(row.rig.boxes))
    with GONE[how](*row.rig.boxes):
        first = ask_all(row, WAYS)
        assert max(call.seconds for call in first) < 2 * CONNECT_S + allowed(1)
        wait_until_usable(row)
        calls = [ask(row) for _ in range(20)]
        for call in [*first, *calls]:
            assert call.status == 503
            assert row.record(call.id)["error"] == "upstream_unreachable"
            assert int(call.answer.headers.get("Retry-After") or 0) >= 1
            assert call.error().startswith("Failed to connect to Ollama service")
        # Now and then one is the trial of a worker at a box, and waits for
        # the limit for connecting.
        at_once = sorted(call.seconds for call in calls)[:15]
        assert max(at_once) < allowed(0.1)
        wait_until(lambda: statuses(alone, "/readyz") == {503}, 10)
        assert statuses(alone, "/livez") == {200}
        assert row.ask("GET", "/livez").status == 200
    began = time.monotonic()
    # Under load, as its clients would.
    wait_until(lambda: {call.status for call in ask_all(row, [CHAT] * 8)} == {200}, 15)
    wait_until_usable(row, *row.rig.boxes, seconds=15 - (time.monotonic() - began))
    wait_until(lambda: statuses(alone, "/readyz") == {200}, 15 - (time.monotonic() - began))
    recovered_s = time.monotonic() - began
    assert {call.status for call in ask_all(row, [CHAT] * 40)} == {200}
    row.measured(f"{how}: 503 after", max(at_once) * 1000, "ms")
    row.measured(f"{how}: again after", recovered_s, "s")


def statuses(gateway: Gateway, path: str) -> set[int]:
    """What the workers say."""
    return {request(gateway.url, path=path).status for _ in range(6)}


def test_u26_name_that_resolves_late_or_not_at_all(door: str, tmp_path: Path) -> None:
    """Four names need ten seconds each, one is nobody's: 40 requests to them fail in time, and hold
    up no other, nor those to an upstream that is itself looked up each time."""
    late = [{"name": f"late{n}", "base_url": f"http://late.invalid:1143{n}"} for n in range(4)]
    lost = {"name": "lost", "base_url": "http://nobody.invalid:11434"}
    limits = {"timeouts": {"connect_s": CONNECT_S}}
    more = [each | limits for each in (*late, lost)]
    slow, env = slow_resolver(tmp_path)
    with ExitStack() as stack:
        named = stack.enter_context(Box("named", ["m"]))
        named.script("/api/chat", [CloseAfter(), Json(DONE)])
        more.append({"name": "named", "base_url": f"http://localhost:{named.port}"})
        rig = stack.enter_context(Rig(more_upstreams=more, upstream=limits, env=env))
        row = stack.enter_context(rig.row(door))
        stack.enter_context(slow)
        row.allow(503)
        models = [f"{each['name']}/m" for each in (*late, lost)] * 8
        with ThreadPoolExecutor(len(models)) as pool:
            failing = [pool.submit(ask, row, model=model) for model in models]
            while not all(each.done() for each in failing):
                # More look-ups than gevent has threads for them are under way meanwhile.
                well = [ask(row, model="m"), ask(row, model="named/m")]
                assert all(
                    (call.status, call.seconds < allowed(1)) == (200, True) for call in well
                ), well
            calls = [each.result() for each in failing]
        assert {call.status for call in calls} == {503}
        assert CONNECT_S - 0.1 < max(call.seconds for call in calls) < 6
        wait_until_usable(row, *row.rig.boxes)
        row.measured("slowest failure", max(call.seconds for call in calls), "s")


RESOLVER = """\
import _socket, os
from time import monotonic, sleep  # those of now: gevent's would make an event loop in each thread
look_up = _socket.getaddrinfo
def getaddrinfo(host, *args, **named):
    if str(host).endswith(".invalid"):
        until = monotonic() + 10
        while host == "late.invalid" and os.path.exists({flag!r}) and monotonic() < until:
            sleep(0.05)
        raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
    return look_up(host, *args, **named)
_socket.getaddrinfo = getaddrinfo
"""


def slow_resolver(directory: Path) -> tuple[AbstractContextManager[None], dict[str, str]]:
    """The environment of a process for which no name under .invalid resolves; within the context
    one of them takes ten seconds for it."""
    flag = directory / "slow"
    (directory / "sitecustomize.py").write_text(RESOLVER.format(flag=str(flag)))

    @contextmanager
    def slow() -> Iterator[None]:
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    return slow(), {"PYTHONPATH": str(directory)}


LISTS = ("/api/tags", "/v1/models", "/api/ps", "/api/version")


def test_u28_list_of_models_while_a_box_hangs(row: Row) -> None:
    """It comes from the others and from what is known, within a second, and says whose part is old;
    readiness and prompts wait for it as little."""
    hung = row.rig.boxes[1]
    for path in ("/api/tags", "/api/ps", "/api/version"):
        hung.script(path, [WaitForPeerClose(60)])
    over, slowest, partial = time.monotonic() + 60, 0.0, set()
    while not {(path, "box2") for path in LISTS[:3]} <= partial:
        assert time.monotonic() < over, partial
        for path in LISTS:
            began = time.monotonic()
            answer = row.ask("GET", path)
            slowest = max(slowest, time.monotonic() - began)
            assert answer.status == 200
            assert path not in LISTS[:2] or '"m' in answer.text
            partial.add((path, answer.headers.get("X-Ollama-Proxy-Partial")))
        began = time.monotonic()
        assert row.ask("GET", "/readyz", token=None).status == 200
        slowest = max(slowest, time.monotonic() - began)
        assert ask(row).status == 200
    assert slowest < allowed(1)
    row.measured("slowest list", slowest, "s")
    hung.clear()
    wait_until_usable(row, *row.rig.boxes)
