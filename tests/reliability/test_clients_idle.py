"""More connections than the workers can hold, of clients that ask for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.reliability.rig import TOKEN, Rig, Row, allowed, nginx_decides
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer, encode_request, request

WORKERS, CONNECTIONS = 2, 40
CROWD = WORKERS * CONNECTIONS + 50
ANSWERED_MS = allowed(1000)

HEAD = encode_request("gateway.test", "GET", "/livez", None, {"Connection": "keep-alive"})
KINDS = {"silent": b"", "half a head": HEAD[:-2], "kept after a call": HEAD}


rig = module_fixture(lambda: Rig(env={"WORKER_CONNECTIONS": str(CONNECTIONS)}, workers=WORKERS))


def timed(call: Callable[[], Answer]) -> tuple[int, float]:
    """The status of an answer, and how long it took in ms."""
    began = time.monotonic()
    return call().status, (time.monotonic() - began) * 1000


@nginx_decides
@pytest.mark.parametrize("kind", KINDS)
def test_c11_more_idle_connections_than_there_is_room_for(row: Row, kind: str) -> None:
    visitors = [Visitor(KINDS[kind], comes_s=number / 100) for number in range(CROWD)]
    with Crowd(row.port, visitors) as crowd:
        wait_until(lambda: len(crowd.over) + crowd.present == CROWD, 10, "they did not come")
        if row.door == "gateway":
            wait_until(
                lambda: crowd.present <= WORKERS * CONNECTIONS,
                5,
                lambda: f"{crowd.present} are held",
            )
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
        told = [
            timed(lambda url=url, path=path: request(url, path=path, headers=bearer(TOKEN)))  # type: ignore[misc]
            for url in (row.nginx.url, row.gateway.url)
            for path in ("/health", "/readyz", "/livez")
            for _ in range(5)
        ]
        told += [timed(lambda: row.ask("POST", "/api/chat", body)) for _ in range(5)]
    row.measured(f"slowest answer, {kind}", max(ms for _, ms in told), "ms")
    assert {status for status, _ in told} == {200}
    assert max(ms for _, ms in told) < ANSWERED_MS
