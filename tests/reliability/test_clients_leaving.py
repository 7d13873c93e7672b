"""Clients that leave, in every phase of a call and in every dialect, and clients that use
one id for two calls."""

from __future__ import annotations

import random
import secrets
import statistics
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.reliability.rig import TOKEN, Row, allowed, nginx_decides
from tests.rig import SeenRequest
from tests.rig.calls import CHAT_LINE, EMBEDDINGS, FACES, STREAM_HEAD, TEXT_LINE, Face
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, Head, Json, Lines, Script, WaitFor, WaitForPeerClose
from tests.rig.http_client import Stream, bearer, open_stream

#: The promise: how long after its client the connection to the upstream may live.
NOTICED_MS = allowed(1000)
TRIES = 5
SILENCE = WaitForPeerClose(60)
WORDS = ("one", " two", " three")


# --- C1 to C4: what the upstream notices ----------------------------------------------------------


class Caller(NamedTuple):
    """One client in the middle of its call."""

    id: str
    stream: Stream
    #: The call as it reached the upstream.
    seen: SeenRequest


def said(face: Face) -> Script:
    """Three tokens, then a long gap."""
    if face.upstream_path == "/api/chat":
        lines = [CHAT_LINE | {"message": {"role": "assistant", "content": word}} for word in WORDS]
    else:
        lines = [TEXT_LINE | {"response": word} for word in WORDS]
    return [
        Lines([{"created_at": "2026-01-01T00:00:00.000000Z", **line} for line in lines]),
        SILENCE,
    ]


def marked(face: Face, mark: str) -> dict[str, Any]:
    """The body of a face, with a prompt by which the upstream's log can tell the
    calls from each other."""
    if "messages" in face.body:
        return face.body | {"messages": [{"role": "user", "content": mark}]}
    return face.body | {"prompt" if "prompt" in face.body else "input": mark}


def calls(row: Row, face: Face, *, stream: bool) -> list[Caller]:
    """As many calls as there are tries, all of them at the upstream."""
    started = []
    for _ in range(TRIES):
        id = row.new_id()
        headers = {**bearer(TOKEN), "X-Request-Id": id}
        body = marked(face, id) | {"stream": stream}
        started.append(
            (id, open_stream(row.url, "POST", face.path, body, headers, wait_for_head=False))
        )
    return [Caller(id, stream, arrived(row, id)) for id, stream in started]


def arrived(row: Row, mark: str) -> SeenRequest:
    """The call with this prompt, once it has reached the upstream."""

    def found() -> list[SeenRequest]:
        return [seen for seen in row.upstream.requests if mark.encode() in seen.body]

    return wait_until(found, 5, f"{mark} did not arrive")[0]


def latencies_ms(row: Row, callers: list[Caller]) -> list[float]:
    """Lets them leave one after another, every second one by a reset; how long the upstream had to
    wait for the end of each connection."""
    chance, left = random.Random(1), []
    for caller in callers:
        # At another moment between two looks of the watch; not a wait.
        time.sleep(chance.uniform(0.01, 0.05))
        left.append(time.monotonic())
        caller.stream.close(reset=len(left) % 2 == 0)
    return [
        (row.upstream.wait_peer_closed(caller.seen.connection, 15) - at) * 1000
        for caller, at in zip(callers, left, strict=True)
    ]


def leave(row: Row, callers: Mapping[str, list[Caller]]) -> list[dict[str, Any]]:
    """All of them leave: within the promised time the upstream knows, and the log has them as gone.
    Gives their lines of the log."""
    waited = {name: latencies_ms(row, those) for name, those in callers.items()}
    for name, times_ms in waited.items():
        row.measured(name, max(times_ms), "ms")
    row.measured("median of all", statistics.median(sum(waited.values(), [])), "ms")
    assert max(sum(waited.values(), [])) < NOTICED_MS, waited
    lines = [row.record(caller.id) for those in callers.values() for caller in those]
    assert {(line["state"], line["error"]) for line in lines} <= {
        ("client_gone", "client_gone"),
        ("client_gone", None),
    }
    return lines


@nginx_decides
def test_c1_client_leaves_before_the_upstream_has_answered(row: Row) -> None:
    for face in FACES.values():
        row.upstream.script(face.upstream_path, [SILENCE])
    leave(row, {name: calls(row, face, stream=True) for name, face in FACES.items()})


def test_c2_client_leaves_between_the_head_and_the_first_token(row: Row) -> None:
    for face in FACES.values():
        row.upstream.script(face.upstream_path, [STREAM_HEAD, SILENCE])
    callers = {name: calls(row, face, stream=True) for name, face in FACES.items()}
    for caller in sum(callers.values(), []):
        row.upstream.wait_event("sent", caller.seen.connection)
    leave(row, callers)


@nginx_decides
def test_c3_client_leaves_in_a_gap_between_tokens(row: Row) -> None:
    for face in FACES.values():
        row.upstream.script(face.upstream_path, said(face))
    callers = {name: calls(row, face, stream=True) for name, face in FACES.items()}
    for caller in sum(callers.values(), []):
        read_until(caller.stream, WORDS[-1].strip().encode())
    for line in leave(row, callers):
        assert line["status"] == 200 and line["bytes"] > 0
        assert line["estimated"] and 1 <= line["eval_count"] <= 2 * len(WORDS), line


def read_until(stream: Stream, wanted: bytes) -> None:
    read = b""
    while wanted not in read:
        assert (data := stream.read_some()), f"the stream has ended: {read!r}"
        read += data


@pytest.mark.parametrize(
    "before", [(), (Head(200), Chunk(b'{"model":"m",'))], ids=["no head yet", "half an answer"]
)
def test_c4_client_leaves_a_call_that_is_not_streamed(row: Row, before: Script) -> None:
    faces = FACES | EMBEDDINGS
    for face in faces.values():
        row.upstream.script(face.upstream_path, [*before, SILENCE])
    leave(row, {name: calls(row, face, stream=False) for name, face in faces.items()})


# --- C17: one id, several calls -------------------------------------------------------------------


@nginx_decides
def test_c17_same_id_twice_makes_two_lines(row: Row) -> None:
    """The calls are in flight at the same time, and a third comes behind them."""
    face, id, go_on = FACES["openai chat"], f"twice-{secrets.token_hex(8)}", threading.Event()
    done = CHAT_LINE | {"done": True, "done_reason": "stop"}
    row.upstream.script("/api/chat", [WaitFor(go_on), Json(done)])
    headers = {**bearer(TOKEN), "X-Request-Id": id}
    both = [
        open_stream(
            row.url, "POST", face.path, marked(face, f"{id}-{n}"), headers, wait_for_head=False
        )
        for n in range(2)
    ]
    for n in range(2):
        arrived(row, f"{id}-{n}")
    go_on.set()
    third = open_stream(row.url, "POST", face.path, face.body, headers, wait_for_head=False)
    for stream in (*both, third):
        with stream:
            assert stream.read_all() and stream.complete
            assert (stream.status, stream.headers.get("X-Request-Id")) == (200, id)

    def states() -> list[str]:
        return [line["state"] for line in row.gateway.log_lines("access") if line["id"] == id]

    wait_until(lambda: len(states()) >= 3, 5, lambda: f"the log has {states()}")
    assert states() == ["ok"] * 3
