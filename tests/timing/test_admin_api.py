"""Every worker follows a change of the admin API within two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.rig.boxes import Box, fleet_config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Lines, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.keys import wait_for_records
from tests.rig.workers import connected_to_each, exchange

OPERATOR, MEMBER = "operator-token-1", "member-token-1"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
#: The promise, in seconds.
FOLLOWED_S = 2.0


def assert_soon(is_so: Callable[[], bool], what: str) -> None:
    """It is so within the promised time."""
    began = time.monotonic()
    wait_until(is_so, 10, what)
    assert time.monotonic() - began < FOLLOWED_S, what


def test_workers_follow_keys_and_models_within_two_seconds() -> None:
    auth = {
        "generate_tokens": [{"name": "member", "token": MEMBER}],
        "admin_tokens": [{"name": "operator", "token": OPERATOR}],
    }
    with (
        Box("box1", ["m"]) as box,
        Gateway(fleet_config("", [box], auth=auth), records=True, workers=2) as gateway,
        ExitStack() as stack,
    ):
        wait_for_records(gateway)
        workers = stack.enter_context(connected_to_each(gateway)).values()

        def change(method: str, path: str, body: Any = None) -> Any:
            answer = gateway.ask(f"/admin/api/{path}", body, method=method, token=OPERATOR)
            assert answer.status < 300, answer.text
            return answer.json() if answer.body else None

        def have_status(status: int, token: str, method: str, path: str, body: Any = None) -> bool:
            return {
                exchange(worker, method, path, body, bearer(token)).status for worker in workers
            } == {status}

        def assert_followed(token: str, status: int) -> None:
            assert_soon(
                lambda: have_status(status, token, "GET", "/api/version"),
                f"not every worker answers {status}",
            )

        token = change("POST", "tokens", {"name": "web"})["token"]
        assert_followed(token, 200)
        for field, value in (("disabled", True), ("expires", "2001-01-31")):
            change("PATCH", "tokens/web", {field: value})
            assert_followed(token, 401)
            change("PATCH", "tokens/web", {field: None})
            assert_followed(token, 200)
        rotated = change("POST", "tokens/web/rotate")["token"]
        assert_followed(token, 401)
        assert_followed(rotated, 200)

        change("PUT", "models/thinker", {"target": "m", "think": True})
        body = {**CHAT, "model": "thinker", "stream": False}
        for status in (200, 404):
            assert_soon(
                lambda status=status: have_status(status, MEMBER, "POST", "/api/chat", body),
                f"a worker does not answer {status}",
            )
            if status == 200:
                assert [seen.json().get("think") for seen in box.prompts[-2:]] == [True, True]
                change("DELETE", "models/thinker")

        line = {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False}
        box.script("/api/chat", [Lines([line]), WaitForPeerClose(30)])
        streams = [
            stack.enter_context(gateway.open("/api/chat", {**CHAT, "stream": True}, token=rotated))
            for _ in range(4)
        ]
        for stream in streams:
            assert stream.read_some()
        began = time.monotonic()
        change("DELETE", "tokens/web")
        for stream in streams:
            assert b"withdrawn" in stream.read_all(10)
        assert time.monotonic() - began < FOLLOWED_S
        assert_followed(rotated, 401)
