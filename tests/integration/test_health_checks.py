"""Asking for the health costs an upstream little, and no answer of an upstream ends the asking."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.rig.calls import config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Json, Send, Wait
from tests.rig.gateway import Gateway
from tests.rig.http_client import request


def readiness(gateway: Gateway) -> int:
    return request(gateway.url, path="/readyz").status


def test_many_questions_are_one_check_at_a_time(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), workers=1)
    wait_until(lambda: readiness(gateway) == 200, 10)
    fault_upstream.script("/api/version", [Wait(1.0), Json({"version": "0.24.0"})])
    threads = [
        threading.Thread(target=request, args=(gateway.url,), kwargs={"path": "/health"})
        for _ in range(40)
    ]
    most = 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, fault_upstream.connections_open)
    assert most <= 3  # one check, and what was idle before


def test_an_answer_that_is_no_http_ends_no_checks(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    switched = Send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    fault_upstream.script("/api/version", [switched])
    gateway = gateway_for(config(fault_upstream.url), workers=1)
    wait_until(lambda: readiness(gateway) == 503, 10)
    fault_upstream.script("/api/version", [Json({"version": "0.24.0"})])
    wait_until(lambda: readiness(gateway) == 200, 15)
