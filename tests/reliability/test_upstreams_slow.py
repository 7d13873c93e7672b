"""Upstreams that take their time: each limit ends what the others would let go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ollama_proxy.settings.upstreams import Timeouts
from tests.reliability.asked import (
    SINGLES,
    STREAMS,
    WAYS,
    Asked,
    Fault,
    Way,
    ask_all,
    encoded,
    script_all,
)
from tests.reliability.rig import Rig, Row, allowed
from tests.rig import NDJSON, chunk
from tests.rig.fault_upstream import (
    Chunk,
    Drip,
    Flood,
    Head,
    Lines,
    Send,
    WaitForPeerClose,
)

FIRST_BYTE_S, IDLE_S, TOTAL_S = 0.6, 0.5, 1.2
#: How much later than its limit a call may end.
GRACE_S = allowed(1)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    limits = {"first_byte_s": FIRST_BYTE_S, "idle_s": IDLE_S, "total_s": TOTAL_S}
    with Rig(upstream={"timeouts": limits}) as rig:
        yield rig


def ended_by(row: Row, calls: Sequence[Asked], limit_s: float, said: str) -> float:
    """Each call ended at this limit with an error that says so, and the upstream is rid of it.
    Returns the seconds by which the latest was late."""
    for call in calls:
        assert call.seconds - GRACE_S <= limit_s <= call.seconds + 0.1, call
        assert said in call.error()
        line = row.record(call.id)
        assert (line["state"], line["error"], line["status"]) == (
            "timeout",
            "upstream_timeout",
            call.status,
        )
    for seen in row.upstream.requests:
        if seen.method == "POST":
            row.upstream.wait_peer_closed(seen.connection)
    return max(call.seconds for call in calls) - limit_s


def test_u3_upstream_never_answers(row: Row) -> None:
    """It accepts and says nothing: 504 at the limit for the first byte, by default long
    enough to load a model."""
    row.allow(504)
    script_all(row.upstream, lambda face: [WaitForPeerClose()])
    calls = ask_all(row, WAYS)
    assert {call.status for call in calls} == {504}
    late_s = ended_by(row, calls, FIRST_BYTE_S, "did not begin to answer in 0.6 s")
    row.measured("after the limit", late_s * 1000, "ms")
    assert Timeouts().first_byte_s >= 600


SILENCES: dict[str, tuple[Sequence[Way], int, Fault]] = {
    "before a token": (WAYS, 504, lambda face: [Head(200, NDJSON), WaitForPeerClose()]),
    "between tokens": (
        STREAMS,
        200,
        lambda face: [Head(200, NDJSON), Chunk(encoded(face.line)), WaitForPeerClose()],
    ),
}


@pytest.mark.parametrize("silence", SILENCES)
def test_u4_head_and_then_silence(row: Row, silence: str) -> None:
    """The limit for silence ends it: with a status while there is one to give, else as a
    stream that breaks off."""
    ways, status, script = SILENCES[silence]
    row.allow(504)
    script_all(row.upstream, script)
    calls = ask_all(row, ways)
    assert {call.status for call in calls} == {status}
    late_s = ended_by(row, calls, IDLE_S, "silent for 0.5 s")
    row.measured(f"after the limit, {silence}", late_s * 1000, "ms")


#: One byte at a time, each of them sooner than any limit of silence.
DRIPS: dict[str, tuple[Sequence[Way], float, str, Fault]] = {
    "head": (
        WAYS,
        FIRST_BYTE_S,
        "did not begin to answer in 0.6 s",
        lambda face: [Drip(HEAD, 0.1)],
    ),
    "stream": (
        STREAMS,
        TOTAL_S,
        "longer than 1.2 s in total",
        lambda face: [Head(200, NDJSON), Drip(chunk(encoded({**face.line, "x": "x" * 400})), 0.03)],
    ),
    "single answer": (
        SINGLES,
        TOTAL_S,
        "longer than 1.2 s in total",
        lambda face: [
            Send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
            Drip(b" " * 500, 0.1),
        ],
    ),
}


@pytest.mark.parametrize("part", DRIPS)
def test_u5_one_byte_at_a_time(row: Row, part: str) -> None:
    """No read takes long, and yet the limits for the head and for the whole answer are kept."""
    ways, limit_s, said, script = DRIPS[part]
    row.allow(504)
    script_all(row.upstream, script)
    late_s = ended_by(row, ask_all(row, ways), limit_s, said)
    row.measured(f"after the limit, {part}", late_s * 1000, "ms")


ENDLESS: dict[str, Fault] = {
    "slowly": lambda face: [Lines([face.line] * 100, delay_s=0.1)],
    "as fast as it is taken": lambda face: [Flood(encoded(face.line) * 200, limit_s=30)],
}


@pytest.mark.parametrize("pace", ENDLESS)
def test_u6_stream_without_end(row: Row, pace: str) -> None:
    """The limit for the whole answer cuts it, and the client is told."""
    script_all(row.upstream, ENDLESS[pace])
    calls = ask_all(row, STREAMS)
    assert {call.status for call in calls} == {200}
    assert all(b"Hel" in call.answer.body for call in calls)
    late_s = ended_by(row, calls, TOTAL_S, "longer than 1.2 s in total")
    row.measured(f"after the limit, {pace}", late_s * 1000, "ms")
