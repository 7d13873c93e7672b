"""Connect, first-byte, idle and total limits: each of them ends what the others would let go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.rig.boxes import black_hole
from tests.rig.calls import (
    CHAT_LINE,
    FACES,
    MESSAGES,
    TOKEN,
    access_line,
    config,
    whole,
)
from tests.rig.fault_upstream import FaultUpstream, Lines, NoReadBody, Wait, WaitForPeerClose
from tests.rig.health_checks import brief_health_checks
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.provider import upstream_entry

CONNECT_S, FIRST_BYTE_S, IDLE_S, TOTAL_S = 0.5, 0.5, 0.5, 3.0
#: how much later than its limit a call may end
GRACE_S = 1.0
LIMITS = {
    "connect_s": CONNECT_S,
    "first_byte_s": FIRST_BYTE_S,
    "idle_s": IDLE_S,
    "total_s": TOTAL_S,
}


def open_gateway(upstream_url: str) -> LocalGateway:
    return LocalGateway(config(upstream_url, timeouts=LIMITS), over_sockets=True)


def timed(ask_now: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = ask_now()
    return answer, time.monotonic() - began


def test_upstream_that_does_not_take_the_request_is_504(fault_upstream: FaultUpstream) -> None:
    fault_upstream.script("/api/chat", [NoReadBody(), Wait(10)])
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 8_000_000}]}
    with open_gateway(fault_upstream.url) as gateway:
        answer, seconds = timed(lambda: gateway.ask("/api/chat", body))
    assert (answer.status, seconds < TOTAL_S + GRACE_S) == (504, True)


def test_slow_but_steady_tokens_are_no_idle_stream(fault_upstream: FaultUpstream) -> None:
    end = {**CHAT_LINE, "done": True, "done_reason": "stop"}
    lines = Lines([CHAT_LINE, CHAT_LINE, end], delay_s=0.25)
    fault_upstream.script("/api/chat", [Wait(0.25), lines])
    with open_gateway(fault_upstream.url) as gateway:
        answer, seconds = timed(lambda: whole(gateway, FACES["openai chat"]))
    assert seconds > FIRST_BYTE_S
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_black_hole_is_503_after_the_connect_limit(fault_upstream: FaultUpstream) -> None:
    with open_gateway(fault_upstream.url) as gateway, ExitStack() as stack:
        fault_upstream.refuse()
        stack.enter_context(black_hole(fault_upstream.port))
        answer, seconds = timed(lambda: whole(gateway, FACES["openai chat"], "hole"))
        assert (answer.status, CONNECT_S - 0.1 <= seconds < CONNECT_S + GRACE_S) == (503, True)
        assert answer.json()["error"]["message"].startswith("Failed to connect to Ollama service")
        assert access_line(gateway, "hole")["error"] == "upstream_unreachable"
        assert gateway.ask("/livez").status == 200
        with brief_health_checks():
            gateway.check_health()
        assert gateway.ask("/readyz").status == 503


def test_limits_of_an_upstream_count_before_the_general_ones(fault_upstream: FaultUpstream) -> None:
    own = upstream_entry(
        fault_upstream.url, name="box1", kind="ollama", timeouts={"first_byte_s": 0.5}
    )
    settings = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": [own],
        "timeouts": {"first_byte_s": 30},
    }
    fault_upstream.script("/api/chat", [WaitForPeerClose()])
    with LocalGateway(settings) as gateway:
        body = {"model": "m", "messages": MESSAGES}
        answer, seconds = timed(lambda: gateway.ask("/api/chat", body))
    assert (answer.status, 0.5 <= seconds < 0.5 + GRACE_S) == (504, True)
