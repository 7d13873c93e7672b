"""Several answers to one request: what one that fails or is silent means for all."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from gevent import Greenlet

from ollama_proxy.gateway import fanout
from tests.golden import face
from tests.golden.face import frames
from tests.rig import Turn
from tests.rig.calls import CHAT_LINE, MESSAGES, STREAM_HEAD, TEXT_LINE, access_line
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    FaultUpstream,
    Json,
    Lines,
    Script,
    WaitFor,
    WaitForPeerClose,
)
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, Stream
from tests.rig.local import LocalGateway

HEARTBEAT_S = 0.1

CHAT = (
    "/v1/chat/completions",
    "/api/chat",
    {"model": "m", "messages": MESSAGES, "n": 3},
    CHAT_LINE,
)
PROMPTS = ("/v1/completions", "/api/generate", {"model": "m", "prompt": ["a", "b", "c"]}, TEXT_LINE)

Way = tuple[str, str, dict[str, Any], dict[str, Any]]

each_way = pytest.mark.parametrize("way", [CHAT, PROMPTS], ids=["choices", "prompts"])


shared_gateway = module_fixture(
    lambda shared_upstream: face.local_gateway(shared_upstream, stream={"heartbeat_s": HEARTBEAT_S})
)


@pytest.fixture
def go() -> threading.Event:
    """What scripts wait for."""
    return threading.Event()


def token(way: Way) -> Chunk:
    """A part of an answer that goes on."""
    return Chunk(json.dumps(way[3]).encode() + b"\n")


def end(way: Way) -> Chunk:
    return Chunk(json.dumps(way[3] | {"done": True, "done_reason": "stop"}).encode() + b"\n")


def open_answer(gateway: LocalGateway, way: Way, request_id: str = "unnamed") -> Stream:
    return gateway.open(way[0], way[2] | {"stream": True}, headers={"X-Request-Id": request_id})


def begin(gateway: LocalGateway, way: Way, *, stream: bool = True) -> Greenlet[..., Answer]:
    """The whole answer, which is read while the test goes on."""
    return gevent.spawn(gateway.ask, way[0], way[2] | {"stream": stream})


@dataclass
class Noted:
    """Notes the connection on which its script is played: any of the three requests may get it."""

    connections: list[int] = field(default_factory=list)

    def play(self, turn: Turn) -> None:
        self.connections.append(turn.wire.number)


def read_times(client: Stream, text: bytes, times: int) -> bytes:
    """What the client gets, up to the last of so many occurrences of a text."""
    read = b""
    while read.count(text) < times:
        data = client.read_some()
        assert data, f"ended early: {read!r}"
        read += data
    return read


def expect_closed(upstream: FaultUpstream, connections: list[int]) -> None:
    """The gateway closes each."""

    def closed() -> set[int]:
        return {event.connection for event in upstream.events if event.kind == "peer_closed"}

    wait_until(lambda: set(connections) <= closed(), 5, lambda: f"{connections}: {closed()}")


# --- One of three fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "stream", "status", "text"),
    [
        (CHAT, True, 503, "server busy"),
        (CHAT, False, 503, "server busy"),
        (PROMPTS, True, 503, "server busy"),
        (PROMPTS, False, 503, "server busy"),
        (CHAT, True, 404, "model 'm' not found"),
        (CHAT, True, 400, "no"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else None,
)
def test_refusal_of_one_is_the_answer_and_the_others_are_closed(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    go: threading.Event,
    way: Way,
    stream: bool,
    status: int,
    text: str,
) -> None:
    others = Noted()
    silent: Script = [others, WaitForPeerClose()]
    upstream.script(way[1], [WaitFor(go), Json({"error": text}, status)], silent, silent)
    reading = begin(gateway, way, stream=stream)
    wait_until(lambda: len(others.connections) == 2)
    go.set()
    answer = reading.get(timeout=5)
    assert (answer.status, answer.json()["error"]["message"]) == (status, text)
    expect_closed(upstream, others.connections)


@each_way
def test_refusal_that_comes_just_behind_a_first_token_is_still_a_status(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    go: threading.Event,
    way: Way,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout, "OPENING_S", 60)
    others = Noted()
    begun: Script = [STREAM_HEAD, token(way), others, WaitForPeerClose()]
    upstream.script(way[1], begun, [WaitFor(go), Json({"error": "server busy"}, 503)], begun)
    reading = begin(gateway, way)
    wait_until(lambda: len(others.connections) == 2)
    go.set()
    assert reading.get(timeout=5).status == 503


FAILURES: dict[str, list[Action]] = {
    "error": [Lines([{"error": "boom"}])],
    "cut": [Cut()],
    "ended": [],
}


@each_way
@pytest.mark.parametrize("how", FAILURES)
def test_failure_of_one_in_the_middle_ends_all_with_an_error(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    request_id: str,
    go: threading.Event,
    way: Way,
    how: str,
) -> None:
    others = Noted()
    begun: Script = [others, STREAM_HEAD, token(way), WaitForPeerClose()]
    upstream.script(way[1], [STREAM_HEAD, token(way), WaitFor(go), *FAILURES[how]], begun, begun)
    with open_answer(gateway, way, request_id) as client:
        body = read_times(client, b"Hel", 3)
        go.set()
        body += client.read_all(5)
        assert (client.status, client.complete) == (200, True)
    *chunks, last = frames(body)
    assert b"[DONE]" not in body
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1, 2}
    assert last["error"]["type"] == "server_error"
    assert how != "error" or last["error"]["message"] == "boom"
    expect_closed(upstream, others.connections)
    assert access_line(gateway, request_id)["state"] == "upstream_error"


def test_one_that_has_ended_does_not_save_the_answer_from_the_failure_of_another(
    gateway: LocalGateway, upstream: FaultUpstream, go: threading.Event
) -> None:
    done: Script = [STREAM_HEAD, end(CHAT)]
    upstream.script("/api/chat", done, done, [STREAM_HEAD, token(CHAT), WaitFor(go), Cut()])
    with open_answer(gateway, CHAT) as client:
        body = read_times(client, b'"stop"', 2)
        go.set()
        body += client.read_all(5)
    assert body.count(b'"finish_reason":"stop"') == 2
    assert "error" in frames(body)[-1]


# --- Silence --------------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize(
    "before", [[], [STREAM_HEAD]], ids=["before the heads", "before the tokens"]
)
def test_heartbeats_come_while_all_are_silent(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    go: threading.Event,
    way: Way,
    before: list[Action],
) -> None:
    upstream.script(way[1], [*before, WaitFor(go), end(way)])
    if not before:
        upstream.script(way[1], [WaitFor(go), STREAM_HEAD, end(way)])
    with open_answer(gateway, way) as client:
        assert client.read_some().startswith(b":")
        go.set()
        body = client.read_all(5)
    assert body.count(b'"finish_reason":"stop"') == 3
    assert body.endswith(b"data: [DONE]\n\n")


def test_quick_answers_do_not_wait_for_one_that_is_still_in_the_queue(
    gateway: LocalGateway, upstream: FaultUpstream, go: threading.Event
) -> None:
    upstream.script(
        "/api/chat",
        [STREAM_HEAD, end(CHAT)],
        [STREAM_HEAD, end(CHAT)],
        [WaitFor(go), STREAM_HEAD, end(CHAT)],
    )
    with open_answer(gateway, CHAT) as client:
        assert b"[DONE]" not in read_times(client, b'"stop"', 2)
        go.set()
        assert client.read_all(5).endswith(b"data: [DONE]\n\n")


def test_ten_requests_for_sixteen_answers_leave_nothing_behind(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """The fixture checks that nothing is open."""
    body = {"model": "m", "messages": MESSAGES, "n": 16, "stream": True}
    for _ in range(10):
        answer = gateway.ask("/v1/chat/completions", body)
        assert answer.body.count(b'"finish_reason":"stop"') == 16
    assert len([seen for seen in upstream.requests if seen.path == "/api/chat"]) == 160
