"""Clients that take all the time they want: for reading, for the head of a
request, and for its body."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.reliability.rig import TOKEN, Rig, Row, allowed, nginx_decides
from tests.rig.calls import CHAT_LINE, DIALECT_FACES, Face, resident_kib
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import Flood
from tests.rig.http_client import Stream, bearer, encode_request, open_stream
from tests.rig.leaks import open_descriptors, worker_details

SEND_IDLE_S, BODY_TIMEOUT_S, HEAD_S, NGINX_HEAD_S = 4.5, 3.5, 3, 2
#: How much later than its limit a connection may end on a machine that has a lot to do.
GRACE_S = allowed(5)
NGINX = {"client_header_timeout 10s;": f"client_header_timeout {NGINX_HEAD_S}s;"}
ENV = {"GUNICORN_CMD_ARGS": f"--keep-alive {HEAD_S}"}
CROWD = 300
LONG_LINE = (
    json.dumps({**CHAT_LINE, "message": {"role": "assistant", "content": "x" * 4000}}).encode()
    + b"\n"
)
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    config = {
        "timeouts": {"send_idle_s": SEND_IDLE_S},
        "server": {"body_timeout_s": BODY_TIMEOUT_S},
    }
    with Rig(config=config, nginx=NGINX, env=ENV) as rig:
        yield rig


# --- C6: a client that stops reading --------------------------------------------------------------

PASSES, KEEPS = "text passes", "responses keep their text"
#: Its streams end with an event that has all of their text, which is kept for that.
KEEPS_TEXT = "openai responses"
STALLED = {
    PASSES: [face for name, face in DIALECT_FACES.items() if name != KEEPS_TEXT] * 5,
    KEEPS: [DIALECT_FACES[KEEPS_TEXT]] * 4,
}
HOPS = {"gateway": 1, "nginx": 2}


def kernel_buffers(hops: int) -> int:
    """What the kernel may hold of a stream: on each hop, and for a client with a
    small window, in bytes."""
    most = [
        int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in ("r", "w")
    ]
    return hops * sum(most) + most[1]


class Memory:
    """The most memory that the workers had together, looked at again and again, in
    bytes above the start."""

    def __init__(self, row: Row) -> None:
        self._pids = row.gateway.worker_pids()
        self._start = self._now()
        self.growth = 0
        self._is_over = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join(5)

    def _now(self) -> int:
        return sum(resident_kib(pid) for pid in self._pids) * 1024

    def _look(self) -> None:
        while not self._is_over.wait(0.05):
            self.growth = max(self.growth, self._now() - self._start)


def stall(row: Row, face: Face, id: str) -> Stream:
    """A client with a small window that has read 64 KiB of a stream, and reads no more."""
    headers = {**bearer(TOKEN), "X-Request-Id": id}
    stream = open_stream(
        row.url, "POST", face.path, face.body | {"stream": True}, headers, receive_buffer=8192
    )
    read = 0
    while read < 65536:
        read += len(stream.read_some())
    return stream


@nginx_decides
@pytest.mark.parametrize("kind", STALLED)
def test_c6_client_stops_reading(row: Row, kind: str) -> None:
    row.upstream.script("/api/chat", [Flood(LONG_LINE, limit_s=30)])
    faces = STALLED[kind]
    ids = [row.new_id() for _ in faces]
    with ExitStack() as clients, Memory(row) as memory:
        ends: list[tuple[float, int]] = []
        for id, face in zip(ids, faces, strict=True):
            clients.enter_context(stall(row, face, id))
            ends.append(
                (
                    time.monotonic(),
                    row.upstream.wait_for_request(len(ends) + 1, "/api/chat").connection,
                )
            )
        cut = [
            (stopped, connection, row.upstream.wait_peer_closed(connection, SEND_IDLE_S + GRACE_S))
            for stopped, connection in ends
        ]
        taken = [row.upstream.bytes_sent(connection) for _, connection in ends]
        assert {row.record(id)["state"] for id in ids} == {"client_gone"}
    kept = sum(taken) if kind == KEEPS else 0
    row.measured(f"memory per stream, {kind}", memory.growth / len(faces) / 1024, "KiB")
    assert memory.growth < len(faces) * MIB + kept
    assert max(taken) < kernel_buffers(HOPS[row.door]) + MIB
    assert min(at - stopped for stopped, _, at in cut) > SEND_IDLE_S - 0.5
    # After the client has stopped, the buffers on the way to it fill up.
    assert max(at - last_sent(row, connection) for _, connection, at in cut) < SEND_IDLE_S + GRACE_S


def last_sent(row: Row, connection: int) -> float:
    """When the upstream got rid of its last piece on a connection."""
    return max(
        seen.at
        for seen in row.upstream.events
        if (seen.kind, seen.connection) == ("sent", connection)
    )


# --- C7: heads, byte for byte ---------------------------------------------------------------------


@nginx_decides
def test_c7_heads_come_byte_for_byte(row: Row) -> None:
    head = encode_request("gateway.test", "POST", "/api/chat", None, bearer(TOKEN))
    limit_s = NGINX_HEAD_S if row.door == "nginx" else HEAD_S
    visitors = [Visitor(head[:1], slowly=head[1:]) for _ in range(CROWD)]
    with Crowd(row.port, visitors) as crowd:
        crowd.wait_present(CROWD)
        assert row.ask("GET", "/api/tags").status == 200
        crowd.wait_over(limit_s + GRACE_S)
    cut_after_s = [visitor.was_cut_after_s for visitor in visitors]
    row.measured("cut after", max(cut_after_s), "s")
    assert min(cut_after_s) > limit_s - 0.5 and max(cut_after_s) < limit_s + GRACE_S
    assert not any(visitor.received for visitor in visitors)


# --- C8: bodies, byte for byte --------------------------------------------------------------------


def slow_bodies(row: Row, *, admitted: bool) -> list[tuple[Face, Visitor]]:
    """Clients of every dialect, each of which sends its body byte for byte."""
    slow = []
    for face in list(DIALECT_FACES.values()) * (CROWD // len(DIALECT_FACES)):
        id = {"X-Request-Id": row.new_id()} if admitted else {}
        data = encode_request(
            f"127.0.0.1:{row.port}", "POST", face.path, face.body, {**bearer(TOKEN), **id}
        )
        head, _, body = data.partition(b"\r\n\r\n")
        slow.append((face, Visitor(head + b"\r\n\r\n" + body[:1], slowly=body[1:])))
    return slow


def total(row: Row, of: str) -> int:
    """A number of all workers together."""
    return sum(details[of] for details in worker_details(row.gateway, TOKEN).values())


def descriptors(row: Row) -> int:
    return sum(len(open_descriptors(pid)) for pid in row.gateway.worker_pids())


def most_held(row: Row, opened: int, seconds: float) -> int:
    """By how many descriptors the workers are above `opened` at the most, for as long as this."""
    held, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        held = max(held, descriptors(row) - opened)
        time.sleep(0.05)  # between two looks
    return held


def asked_of_the_upstream(row: Row) -> list[Any]:
    return [seen for seen in row.upstream.requests if seen.method == "POST"]


@nginx_decides
def test_c8_bodies_come_byte_for_byte(row: Row) -> None:
    """nginx keeps them to itself, without a limit in all; the gateway gives them some time."""
    greenlets, opened = total(row, "greenlets"), descriptors(row)
    slow = slow_bodies(row, admitted=row.door == "gateway")
    with Crowd(row.port, [visitor for _, visitor in slow]) as crowd:
        crowd.wait_present(CROWD)
        if row.door == "gateway":
            wait_until(lambda: total(row, "in_flight") >= CROWD, 3, "not all of them are in flight")
            row.measured("greenlets meanwhile", total(row, "greenlets") - greenlets, "more")
            crowd.wait_over(BODY_TIMEOUT_S + GRACE_S)
        else:
            held = most_held(row, opened, BODY_TIMEOUT_S + 1)
            row.measured("connections to the gateway", held, "more")
            assert held < 20 and crowd.present == CROWD
    assert asked_of_the_upstream(row) == []
    if row.door == "gateway":
        check_cut_bodies(row, slow)


def check_cut_bodies(row: Row, slow: list[tuple[Face, Visitor]]) -> None:
    """Each was told that its time was over, in the words of its dialect."""
    cut_after_s = [visitor.was_cut_after_s for _, visitor in slow]
    row.measured("cut after", max(cut_after_s), "s")
    assert min(cut_after_s) > BODY_TIMEOUT_S - 0.5 and max(cut_after_s) < BODY_TIMEOUT_S + GRACE_S
    for face, visitor in slow:
        assert "did not arrive in time" in assert_error(visitor.answer(), face.dialect, 408)
