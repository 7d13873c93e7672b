"""Upstreams that send more than anybody takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.reliability.asked import encoded, script_all
from tests.reliability.rig import Rig, Row
from tests.rig.calls import FACES, resident_kib
from tests.rig.fault_upstream import Flood
from tests.rig.http_client import Stream

#: How fast each client reads, in bytes a second, and in how many steps.
RATE, STEPS = 1 << 20, 20
READ_S, LEARN_S = 5.0, 1.5
#: So much a worker may grow after the start for one stream; a stream that was buffered would take hundreds.
MOST_MIB = 4.0
#: All but one: a response ends with all that it said, so it is held, up to a limit that a unit test knows.
SLOW = tuple(name for name in FACES if name != "openai responses")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


def test_u29_answer_is_faster_than_the_client(row: Row) -> None:
    """An upstream that floods waits for a client that reads a megabyte a second: what a worker holds does not grow."""
    script_all(row.upstream, lambda face: [Flood(encoded(face.line).replace(b"Hel", b"Hel" * 600), limit_s=60)])
    with ExitStack() as stack:
        streams = [
            stack.enter_context(row.open(face.path, {**face.body, "stream": True}, receive_buffer=65536))
            for face in map(FACES.__getitem__, SLOW)
        ]
        list(read_slowly(streams, LEARN_S))
        before = {pid: resident_kib(pid) for pid in row.gateway.worker_pids()}
        curve = [max(resident_kib(pid) - before[pid] for pid in before) for _ in read_slowly(streams, READ_S)]
        sent = row.upstream.bytes_sent()
    grown = max(curve) / 1024
    assert grown < MOST_MIB, curve
    # What it could send is what the clients took, and what fits into buffers of the kernel.
    assert sent < len(SLOW) * (RATE * (READ_S + LEARN_S) + (64 << 20)), sent
    row.measured("memory of a worker after the start", max(0.0, grown), "MiB")
    for seen in row.upstream.requests:
        if seen.method == "POST":
            row.upstream.wait_peer_closed(seen.connection)


def read_slowly(streams: list[Stream], seconds: float) -> Iterator[float]:
    """Read all of them at the rate, for so long; yields the time of each step."""
    for _ in range(int(seconds * STEPS)):
        began = time.monotonic()
        for stream in streams:
            left = RATE // STEPS
            while left > 0:
                left -= len(stream.sock.recv(left))
        yield began
        time.sleep(max(0.0, began + 1 / STEPS - time.monotonic()))
