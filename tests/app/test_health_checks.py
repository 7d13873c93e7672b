"""Asking for the health costs an upstream little, and no answer of an upstream ends the asking."""

from __future__ import annotations

import gevent

from tests.golden.face import local_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Json, Send, Wait
from tests.rig.local import LocalGateway


def readiness(gateway: LocalGateway) -> int:
    return gateway.request(path="/readyz").status


def test_many_questions_are_one_check_at_a_time(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/version", [Wait(0.5), Json({"version": "0.24.0"})])
    questions = [gevent.spawn(gateway.check_health) for _ in range(40)]
    wait_until(lambda: all(question.ready() for question in questions), 10)
    assert [seen.path for seen in upstream.requests] == ["/api/version"]


def test_an_answer_that_is_no_http_ends_no_checks(upstream: FaultUpstream) -> None:
    switched = Send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    with local_gateway(upstream, over_sockets=True) as gateway:
        upstream.script("/api/version", [switched])
        gateway.check_health()
        assert readiness(gateway) == 503
        upstream.script("/api/version", [Json({"version": "0.24.0"})])
        gateway.check_health()
        assert readiness(gateway) == 200
