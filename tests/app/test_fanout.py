"""Several answers to one request through real gunicorn: what one that fails, is silent or
is left means for all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.golden import face
from tests.golden.face import TOKEN, frames, post
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
    Reset,
    Script,
    Wait,
    WaitFor,
    WaitForPeerClose,
)
from tests.rig.http_client import Stream, bearer
from tests.rig.local import LocalGateway
from tests.rig.stalls import seconds_without_stalls

#: Seconds between the moment in which the others are of no use any more and the close
#: of their connections.
NOTICED_S = 1.0
HEARTBEAT_S = 0.2

#: Seconds between a first token and a refusal that still decides the status.
BEHIND_S = 0.05

CHAT = (
    "/v1/chat/completions",
    "/api/chat",
    {"model": "m", "messages": MESSAGES, "n": 3},
    CHAT_LINE,
)
PROMPTS = ("/v1/completions", "/api/generate", {"model": "m", "prompt": ["a", "b", "c"]}, TEXT_LINE)

Way = tuple[str, str, dict[str, Any], dict[str, Any]]

each_way = pytest.mark.parametrize("way", [CHAT, PROMPTS], ids=["choices", "prompts"])
each_kind = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "single"])


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """Quick heartbeats; keeps as many upstream connections as it has asked for answers at once."""
    with face.local_gateway(
        shared_upstream, idle=32, stream={"heartbeat_s": HEARTBEAT_S}
    ) as running:
        yield running
        assert "Traceback" not in running.output(), running.output()


@pytest.fixture
def go() -> threading.Event:
    """What scripts wait for."""
    return threading.Event()


def token(way: Way) -> Chunk:
    """A part of an answer that goes on."""
    return Chunk(json.dumps(way[3]).encode() + b"\n")


def end(way: Way) -> Chunk:
    return Chunk(json.dumps(way[3] | {"done": True, "done_reason": "stop"}).encode() + b"\n")


def ask(
    gateway: LocalGateway,
    way: Way,
    request_id: str = "unnamed",
    *,
    stream: bool = True,
    **options: Any,
) -> Stream:
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    return gateway.open_stream("POST", way[0], way[2] | {"stream": stream}, headers, **options)


@dataclass
class Noted:
    """Notes the connection on which its script is played: any of the three requests may get it."""

    connections: list[int] = field(default_factory=list)

    def play(self, turn: Turn) -> None:
        self.connections.append(turn.wire.number)


def three_asked(upstream: FaultUpstream, way: Way) -> list[int]:
    """The connections of the three requests in any order, once they are all there."""
    upstream.wait_for_request(3, way[1])
    return [seen.connection for seen in upstream.requests if seen.path == way[1]]


def read_times(client: Stream, text: bytes, times: int) -> bytes:
    """What the client gets, up to the last of so many occurrences of a text."""
    read = b""
    while read.count(text) < times:
        data = client.read_some()
        assert data, f"ended early: {read!r}"
        read += data
    return read


def expect_closed(upstream: FaultUpstream, connections: list[int], since: float) -> None:
    """Each was closed by the gateway, and soon."""
    for connection in connections:
        assert seconds_without_stalls(since, upstream.wait_peer_closed(connection)) < NOTICED_S


# --- One of three fails ---------------------------------------------------------------------------


@each_kind
@each_way
@pytest.mark.parametrize(
    ("status", "text"), [(503, "server busy"), (404, "model 'm' not found"), (400, "no")]
)
def test_refusal_of_one_is_the_answer_and_the_others_are_closed(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    go: threading.Event,
    way: Way,
    status: int,
    text: str,
    stream: bool,
) -> None:
    others = Noted()
    silent: Script = [others, WaitForPeerClose()]
    upstream.script(way[1], [WaitFor(go), Json({"error": text}, status)], silent, silent)
    with ask(gateway, way, stream=stream, wait_for_head=False) as client:
        three_asked(upstream, way)
        wait_until(lambda: len(others.connections) == 2)
        refused_at = time.monotonic()
        go.set()
        body = client.read_all(5)
        assert (client.status, json.loads(body)["error"]["message"]) == (status, text)
    expect_closed(upstream, others.connections, refused_at)


@each_way
def test_refusal_that_comes_just_behind_a_first_token_is_still_a_status(
    gateway: LocalGateway, upstream: FaultUpstream, go: threading.Event, way: Way
) -> None:
    begun: Script = [WaitFor(go), STREAM_HEAD, token(way), WaitForPeerClose()]
    refused: Script = [WaitFor(go), Wait(BEHIND_S), Json({"error": "server busy"}, 503)]

    def status_if_just_behind() -> int | None:
        """None: the machine stood still between the two."""
        upstream.clear()
        upstream.script(way[1], begun, refused, begun)
        go.clear()
        with ask(gateway, way, wait_for_head=False) as client:
            three_asked(upstream, way)
            go.set()
            client.read_all(5)
        sent = [event.at for event in upstream.events if event.kind == "sent"]
        return client.status if sent[-1] - sent[0] < 2 * BEHIND_S else None

    assert wait_until(status_if_just_behind) == 503


FAILURES: dict[str, list[Action]] = {
    "error": [Lines([{"error": "boom"}])],
    "cut": [Cut()],
    "reset": [Reset()],
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
    with ask(gateway, way, request_id) as client:
        body = read_times(client, b"Hel", 3)
        failed_at = time.monotonic()
        go.set()
        body += client.read_all(5)
        assert (client.status, client.complete) == (200, True)
    *chunks, last = frames(body)
    assert b"[DONE]" not in body
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1, 2}
    assert last["error"]["type"] == "server_error"
    assert how != "error" or last["error"]["message"] == "boom"
    expect_closed(upstream, others.connections, failed_at)
    assert access_line(gateway, request_id)["state"] == "upstream_error"


def test_one_that_has_ended_does_not_save_the_answer_from_the_failure_of_another(
    gateway: LocalGateway, upstream: FaultUpstream, go: threading.Event
) -> None:
    done: Script = [STREAM_HEAD, end(CHAT)]
    upstream.script("/api/chat", done, done, [STREAM_HEAD, token(CHAT), WaitFor(go), Cut()])
    with ask(gateway, CHAT) as client:
        three_asked(upstream, CHAT)
        go.set()
        body = client.read_all(5)
    assert body.count(b'"finish_reason":"stop"') == 2
    assert "error" in frames(body)[-1]


# --- Clients that leave ---------------------------------------------------------------------------

PHASES: dict[str, tuple[bool, list[Action]]] = {
    "before the heads": (True, []),
    "before the first tokens": (True, [STREAM_HEAD]),
    "single": (False, []),
}


@each_way
@pytest.mark.parametrize("phase", PHASES)
def test_client_that_leaves_early_closes_all(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, way: Way, phase: str
) -> None:
    stream, before = PHASES[phase]
    upstream.script(way[1], [*before, WaitForPeerClose()])
    client = ask(gateway, way, request_id, stream=stream, wait_for_head=False)
    connections = three_asked(upstream, way)
    left_at = time.monotonic()
    client.close()
    expect_closed(upstream, connections, left_at)
    assert access_line(gateway, request_id)["state"] == "client_gone"


@each_way
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_client_that_leaves_between_tokens_closes_all(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str, way: Way, reset: bool
) -> None:
    upstream.script(way[1], [STREAM_HEAD, token(way), WaitForPeerClose()])
    client = ask(gateway, way, request_id)
    connections = three_asked(upstream, way)
    read_times(client, b"Hel", 3)
    left_at = time.monotonic()
    client.close(reset=reset)
    expect_closed(upstream, connections, left_at)
    assert access_line(gateway, request_id)["state"] == "client_gone"


def test_client_that_leaves_when_some_have_ended_closes_the_rest(
    gateway: LocalGateway, upstream: FaultUpstream, request_id: str
) -> None:
    done: Script = [STREAM_HEAD, end(CHAT)]
    slow = Noted()
    upstream.script("/api/chat", done, done, [slow, STREAM_HEAD, WaitForPeerClose()])
    client = ask(gateway, CHAT, request_id)
    three_asked(upstream, CHAT)
    read_times(client, b'"stop"', 2)
    left_at = time.monotonic()
    client.close()
    expect_closed(upstream, slow.connections, left_at)
    assert access_line(gateway, request_id)["state"] == "client_gone"


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
    with ask(gateway, way, wait_for_head=False) as client:
        client.read_head(5)
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
    with ask(gateway, CHAT) as client:
        assert b"[DONE]" not in read_times(client, b'"stop"', 2)
        go.set()
        assert client.read_all(5).endswith(b"data: [DONE]\n\n")


def test_ten_requests_for_sixteen_answers_leave_nothing_behind(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """The module's gateway is compared with its beginning when the last test is over."""
    body = {"model": "m", "messages": MESSAGES, "n": 16, "stream": True}
    for _ in range(10):
        answer = post(gateway, "/v1/chat/completions", body)
        assert answer.body.count(b'"finish_reason":"stop"') == 16
    assert len([seen for seen in upstream.requests if seen.path == "/api/chat"]) == 160
