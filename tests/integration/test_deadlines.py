"""Connect, first-byte, idle and total limits: each of them ends what the others would let go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.rig.boxes import black_hole
from tests.rig.calls import (
    CHAT_LINE,
    FACES,
    MESSAGES,
    TOKEN,
    Face,
    access_line,
    ask,
    config,
    warm_up,
)
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import FaultUpstream, Lines, NoReadBody, Wait, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, request
from tests.rig.provider import upstream_entry

CONNECT_S, FIRST_BYTE_S, IDLE_S, TOTAL_S = 1.0, 2.0, 2.0, 5.0
#: how much later than its limit a call may end
GRACE_S = 1.0
LIMITS = {
    "connect_s": CONNECT_S,
    "first_byte_s": FIRST_BYTE_S,
    "idle_s": IDLE_S,
    "total_s": TOTAL_S,
}


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    with checked_gateway(
        shared_upstream, TOKEN, warm=warm_up, unsaid=("Traceback",), timeouts=LIMITS
    ) as gateway:
        yield gateway


def whole(stream: Stream) -> Answer:
    """All of an answer; the stream is closed."""
    with stream:
        body = stream.read_all(10)
        return Answer(stream.status, stream.headers, body, stream.complete)


def timed(ask_now: Callable[[], Answer]) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = ask_now()
    return answer, time.monotonic() - began


def test_upstream_that_does_not_take_the_request_is_504(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [NoReadBody(), Wait(10)])
    big = Face(
        "/api/chat",
        {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000_000}]},
        "",
        {},
    )
    answer, seconds = timed(lambda: whole(ask(gateway.url, big)))
    assert (answer.status, seconds < TOTAL_S + GRACE_S) == (504, True)


def test_slow_but_steady_tokens_are_no_idle_stream(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    end = {**CHAT_LINE, "done": True, "done_reason": "stop"}
    upstream.script("/api/chat", [Wait(0.8), Lines([CHAT_LINE, CHAT_LINE, end], delay_s=0.8)])
    answer, seconds = timed(lambda: whole(ask(gateway.url, FACES["openai chat"])))
    assert seconds > FIRST_BYTE_S
    assert answer.body.endswith(b"data: [DONE]\n\n")


# --- Connecting -----------------------------------------------------------------------------------


def test_black_hole_is_503_after_the_connect_limit(gateway_for: Callable[..., Gateway]) -> None:
    face = FACES["openai chat"]
    with black_hole() as port:
        gateway = gateway_for(config(f"http://127.0.0.1:{port}", timeouts=LIMITS))
        answer, seconds = timed(lambda: whole(ask(gateway.url, face, "hole")))
    assert (answer.status, CONNECT_S - 0.1 <= seconds < CONNECT_S + GRACE_S) == (503, True)
    assert answer.json()["error"]["message"].startswith("Failed to connect to Ollama service")
    assert access_line(gateway, "hole")["error"] == "upstream_unreachable"
    assert request(gateway.url, path="/livez").status == 200
    assert request(gateway.url, path="/readyz").status == 503


def test_limits_of_an_upstream_count_before_the_general_ones(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    own = upstream_entry(
        fault_upstream.url, name="box1", kind="ollama", timeouts={"first_byte_s": 0.5}
    )
    gateway = gateway_for(
        {"auth": {"generate_tokens": [TOKEN]}, "upstreams": [own], "timeouts": {"first_byte_s": 30}}
    )
    fault_upstream.script("/api/chat", [WaitForPeerClose()])
    body = {"model": "m", "messages": MESSAGES}
    answer, seconds = timed(lambda: request(gateway.url, "POST", "/api/chat", body, bearer(TOKEN)))
    assert (answer.status, 0.5 <= seconds < 0.5 + GRACE_S) == (504, True)
