"""Requests that wait for a slot, through real gunicorn: limits of two workers together, and what a
drain does to those that wait. What clients see is in tests/app/test_queue.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.rig.boxes import WorkBox
from tests.rig.calls import FACES, MESSAGES, TOKEN, ask, last_error
from tests.rig.coordinator import wait_until_counted
from tests.rig.deadline import wait_for_minute
from tests.rig.gateway import Gateway

CHAT = {"model": "m", "messages": MESSAGES, "stream": False}


def configured(box: WorkBox, token: Any = TOKEN) -> dict[str, Any]:
    return {
        "auth": {"generate_tokens": [token]},
        "upstreams": [box.declared],
        "stream": {"heartbeat_s": 0.2},
    }


def test_exactly_as_many_requests_pass_as_the_limit_says() -> None:
    token = {"name": "few", "token": TOKEN, "limits": {"requests_per_minute": 3}}
    with (
        WorkBox("box1", ["m"], slots=1) as box,
        Gateway(configured(box, token), workers=2) as gateway,
        ThreadPoolExecutor(9) as pool,
    ):
        wait_for_minute(5)
        answers = list(pool.map(lambda _: gateway.ask("/api/chat", CHAT), range(9)))
        assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 6
        refused = next(answer for answer in answers if answer.status == 429)
        assert int(refused.headers.get("Retry-After") or 0) >= 1
        assert gateway.ask("/api/tags").status == 200


def test_a_drain_refuses_what_waits_and_finishes_what_runs() -> None:
    with (
        WorkBox("box1", ["m"], slots=1) as box,
        Gateway(configured(box), workers=1) as gateway,
        ExitStack() as streams,
        ThreadPoolExecutor(1) as pool,
    ):
        box.go.clear()
        running = streams.enter_context(gateway.open("/api/chat", CHAT, wait_for_head=False))
        wait_until_counted(gateway, 1, 0)
        late = streams.enter_context(ask(gateway.url, FACES["openai chat"]))
        single = streams.enter_context(gateway.open("/api/chat", CHAT, wait_for_head=False))
        wait_until_counted(gateway, 1, 2)
        ended = pool.submit(gateway.stop)
        assert "shutting down" in last_error(late.read_all(), FACES["openai chat"])
        assert (single.status, single.headers.get("Retry-After")) == (503, "1")
        assert b"shutting down" in single.read_all()
        box.go.set()
        assert running.read_all() and running.status == 200
        ended.result()
