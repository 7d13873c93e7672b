"""More bytes than anybody takes, or as many as both sides can."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.asked import encoded, script_all
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row, allowed, nginx_decides
from tests.rig import Turn
from tests.rig.calls import FACES, resident_kib
from tests.rig.fault_upstream import Flood, Json, NoReadBody
from tests.rig.http_client import Stream, bearer, request
from tests.rig.programs import require_program

#: How fast each client reads, in bytes a second, and in how many steps.
RATE, STEPS = 1 << 20, 20
READ_S, LEARN_S, WATCHED_S = 5.0 if BOTH_DOORS else 2.0, 1.5, 1.5
#: The longest that another client of the worker may wait, in seconds.
LONGEST_S = 1.5
UPLOAD_BYTES = 600 << 20
#: So much a worker may grow after the start for one stream; a stream that was
#: buffered would take hundreds.
MOST_MIB = 4.0
#: All but one: a response ends with all that it said, so it is held, up to a limit
#: that a unit test knows.
SLOW = tuple(name for name in FACES if name != "openai responses")


@nginx_decides
def test_u29_answer_is_faster_than_the_client(row: Row) -> None:
    """An upstream that floods waits for a client that reads a megabyte a second: what a
    worker holds does not grow."""
    script_all(
        row.upstream,
        lambda face: [Flood(encoded(face.line).replace(b"Hel", b"Hel" * 600), limit_s=60)],
    )
    sent_before = row.upstream.bytes_sent()
    with ExitStack() as stack:
        streams = [
            stack.enter_context(
                row.open(face.path, {**face.body, "stream": True}, receive_buffer=65536)
            )
            for face in map(FACES.__getitem__, SLOW)
        ]
        list(read_slowly(streams, LEARN_S))
        before = {pid: resident_kib(pid) for pid in row.gateway.worker_pids()}
        curve = [
            max(resident_kib(pid) - before[pid] for pid in before)
            for _ in read_slowly(streams, READ_S)
        ]
        sent = row.upstream.bytes_sent() - sent_before
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


@pytest.mark.parametrize("name", FACES)
def test_flood_that_is_taken_as_it_comes_leaves_others_their_turn(rig: Rig, name: str) -> None:
    """Upstream and client never pause: the worker that is between them must, for
    all its other clients."""
    face = FACES[name]
    with rig.row("gateway") as row:
        before = len(blocks(row))
        script_all(row.upstream, lambda face: [Flood(encoded(face.line) * 200, limit_s=60)])
        with curl(row, face.path, "-d", json.dumps({**face.body, "stream": True})) as client:
            row.upstream.wait_for_request(1, face.upstream_path)
            over = time.monotonic() + WATCHED_S
            assert longest_wait(row, lambda: time.monotonic() < over) < LONGEST_S
            client.terminate()
    assert blocks(row)[before:] == []


def test_upload_that_is_taken_as_it_comes_leaves_others_their_turn(
    rig: Rig, tmp_path: Path
) -> None:
    """The same the other way: a model file whose reader is as fast as its sender."""
    path, file = f"/api/blobs/sha256:{'ab' * 32}", tmp_path / "model"
    with file.open("wb") as sparse:
        sparse.truncate(UPLOAD_BYTES)
    with rig.row("gateway") as row:
        before = len(blocks(row))
        row.upstream.script(path, [NoReadBody(), Swallow(), Json({}, 201)])
        with curl(row, path, "-XPOST", "-T", str(file), "-HX-Ollama-Box: box1") as client:
            assert longest_wait(row, lambda: client.poll() is None) < allowed(0.5)
            assert client.returncode == 0
        assert row.upstream.wait_for_request(1, path).complete
    assert blocks(row)[before:] == []


class Swallow:
    """Take the request's body as fast as it comes, and keep nothing of it."""

    def play(self, turn: Turn) -> None:
        """See Action."""
        left = int(turn.request.header("content-length") or 0) - len(turn.wire.buffer)
        turn.wire.buffer.clear()
        room = bytearray(1 << 20)
        while left > 0 and turn.wire.wait(10, select.POLLIN):
            left -= turn.wire.sock.recv_into(room, min(left, len(room)))
        turn.request.complete = left == 0


@contextmanager
def curl(row: Row, path: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client that is as fast as can be, in a process of its own."""
    headers = [
        f"-H{name}: {value}"
        for name, value in {**bearer(TOKEN), "X-Request-Id": row.new_id()}.items()
    ]
    command = [require_program("curl"), "-sSN", "-o/dev/null", *headers, *arguments, row.url + path]
    with subprocess.Popen(command) as client:
        yield client


def longest_wait(row: Row, goes_on: Callable[[], bool]) -> float:
    """The longest that somebody else waits for the worker meanwhile, in seconds."""
    longest = 0.0
    while goes_on():
        longest = max(longest, seconds_for(row, "/livez"))
        time.sleep(0.02)
    return longest


def blocks(row: Row) -> list[dict[str, Any]]:
    """What the worker's watch says of its loop."""
    return row.gateway.events("event_loop_blocked")


def seconds_for(row: Row, path: str) -> float:
    """How long it takes to be answered."""
    began = time.monotonic()
    assert request(row.url, path=path).status == 200
    return time.monotonic() - began
