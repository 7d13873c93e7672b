"""Answers that break off: no client may take what it has for the whole, and
nothing is asked twice."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.reliability.asked import (
    SINGLES,
    STREAMS,
    WAYS,
    Fault,
    ask,
    ask_all,
    ask_under,
    encoded,
    failing_models,
    prompts,
    wait_until_forgiven,
)
from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.rig import NDJSON
from tests.rig.calls import NATIVE_FACES, Face
from tests.rig.fault_upstream import Chunk, Cut, Head, Lines, Reset, Send, Wait
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import bearer, encode_request, raw
from tests.rig.programs import require_program

JSON = {"Content-Type": "application/json"}
STREAM = Head(200, NDJSON)


rig = module_fixture(lambda: Rig(boxes=2))


def arrivals(row: Row) -> int:
    """How many prompts have reached any box."""
    return sum(prompts(box) for box in row.rig.boxes)


def said(face: Face) -> Chunk:
    """Nine tokens, as long as those of Ollama."""
    return Chunk(encoded({**face.line, "created_at": "2026-01-01T00:00:00.000000000Z"}) * 9)


RESETS: dict[str, Fault] = {
    "inside a chunk": lambda face: [STREAM, said(face), Send(b"30\r\n{"), Reset()],
    "inside the head of a chunk": lambda face: [STREAM, said(face), Send(b"3"), Reset()],
    "between chunks": lambda face: [STREAM, said(face), Reset()],
}
#: A single answer that is too large to be held back until it is complete.
LARGE = b'{"model":"m","embeddings":[[' + b"0.125," * 500_000
FRAMINGS: dict[str, Fault] = {
    "chunks": lambda face: [Head(200, JSON), Chunk(LARGE), Reset()],
    "length": lambda face: [Head(200, JSON | {"Content-Length": "6000000"}), Chunk(LARGE), Reset()],
}
#: What curl ends with when an answer has less than it promised.
CUT_SHORT = 18


@nginx_decides
def test_u7_reset_in_the_middle(row: Row) -> None:
    """Every stream ends with the error of its API. A large document has no frame for that: its
    connection breaks off, without a final chunk, for a raw client and for curl."""
    for name, call in ask_under(row, RESETS, STREAMS):
        assert (call.status, b"Hel" in call.answer.body) == (200, True), name
        assert call.error(), name
        assert row.record(call.id)["state"] == "upstream_error"
    assert arrivals(row) == len(RESETS) * len(STREAMS)
    large = [way for way in SINGLES if way.face in NATIVE_FACES.values()]
    for name, call in ask_under(row, FRAMINGS, large):
        assert (call.status, call.answer.complete) == (200, False), name
        ids = [call.id, row.new_id(), row.new_id()]
        wire = raw(
            row.port, encode_request("gateway", "POST", call.way.face.path, BODY, by_hand(ids[1]))
        )
        assert wire.startswith(b"HTTP/1.1 200") and not wire.endswith(b"\r\n0\r\n\r\n"), name
        assert exit_of_curl(row, call.way.face.path, ids[2]) == CUT_SHORT, name
        assert {row.record(each)["state"] for each in ids} == {"upstream_error"}


BODY = {"model": "m", "input": "hi", "prompt": "hi", "messages": [], "stream": False}


def by_hand(request_id: str) -> dict[str, str]:
    """The headers of a request that the row does not send itself."""
    return {**bearer(TOKEN), "X-Request-Id": request_id}


def exit_of_curl(row: Row, path: str, request_id: str) -> int:
    """What curl thinks of the answer."""
    headers = [f"-H{name}: {value}" for name, value in by_hand(request_id).items()]
    command = [
        require_program("curl"),
        "-sS",
        "-o/dev/null",
        "-m20",
        *headers,
        "-d",
        json.dumps(BODY),
        row.url + path,
    ]
    return subprocess.run(command, capture_output=True, timeout=30).returncode


STOPS: dict[str, Fault] = {
    "no final chunk": lambda face: [STREAM, said(face), Cut()],
    "length too long": lambda face: [
        Head(200, {**NDJSON, "Content-Length": "9000"}),
        said(face),
        Cut(),
    ],
    "end of the connection": lambda face: [Head(200, NDJSON, chunked=False), said(face)],
    "final chunk without done": lambda face: [STREAM, said(face)],
    "half a line": lambda face: [STREAM, said(face), Chunk(encoded(face.line)[:-20])],
    "bad size of a chunk": lambda face: [STREAM, said(face), Wait(0.2), Send(b"zz\r\n"), Cut()],
}
SINGLE_STOPS: dict[str, Fault] = {
    "before the head": lambda _: [Cut()],
    "reset before the head": lambda _: [Reset()],
    "inside the head": lambda _: [Send(b"HTTP/1.1 200 OK\r\nContent-Le"), Cut()],
    "before the body": lambda _: [Head(200, {**JSON, "Content-Length": "100"}), Cut()],
    "inside the body": lambda _: [
        Head(200, {**JSON, "Content-Length": "100"}),
        Chunk(b'{"model":"m"'),
        Cut(),
    ],
    "no final chunk": lambda _: [Head(200, JSON), Chunk(b'{"model":"m","done":true}'), Cut()],
    "reset in a chunk": lambda _: [Head(200, JSON), Send(b"30\r\n{"), Reset()],
}


def test_u8_answer_without_its_end(row: Row) -> None:
    """However a stream stops, its last word is an error, and the tokens that were delivered are
    counted; of a single answer there is nothing yet: 502."""
    row.allow(502)
    for name, call in ask_under(row, STOPS, STREAMS):
        assert call.status == 200, name
        assert call.error(), name
        line = row.record(call.id)
        assert line["state"] == "upstream_error"
        assert line["estimated"] and 5 <= (line["eval_count"] or 0) <= 12, (name, line)
    for name, call in ask_under(row, SINGLE_STOPS, SINGLES):
        assert call.status == 502, name
        line = row.record(call.id)
        assert (line["state"], line["error"]) == ("upstream_error", "upstream_cut"), name


CRASH = {"error": "an error was encountered while running the model: CUDA error"}


def test_u9_error_object_in_a_stream(row: Row) -> None:
    """It is told as an error, and held against the box with this model until
    that answers well again."""
    for _, call in ask_under(row, {"crash": lambda face: [Lines([face.line, CRASH])]}, STREAMS * 6):
        assert call.status == 200
        assert "CUDA error" in call.error()
        assert row.record(call.id)["state"] == "upstream_error"
        if call.way.face in NATIVE_FACES.values():
            assert call.answer.body == encoded(call.way.face.line) + encoded(CRASH)
    assert failing_models(row) == {"m:latest"}
    for box in row.rig.boxes:
        box.clear()
    wait_until_forgiven(row)


AFTER_A_BYTE: dict[str, Fault] = {
    "100 bytes of the head": lambda _: [
        Send(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 73),
        Reset(),
    ],
    "the head": lambda _: [STREAM, Reset()],
    "100 bytes of the body": lambda face: [
        STREAM,
        Chunk(encoded(face.line)),
        Chunk(encoded(face.line)[:12]),
        Reset(),
    ],
    "the request": lambda _: [Cut()],
}


@pytest.mark.parametrize("after", AFTER_A_BYTE)
def test_u12_failure_after_the_first_byte(row: Row, after: str) -> None:
    """What may have been executed is asked of nobody a second time, be it on a new
    connection or on a kept one."""
    row.allow(502)
    assert {call.status for call in ask_all(row, WAYS)} == {200}
    for box in row.rig.boxes:
        box.clear()
    calls = [call for _, call in ask_under(row, {after: AFTER_A_BYTE[after]})]
    for call in calls:
        assert call.status in (200, 502)
        assert call.error()
    assert arrivals(row) == len(calls)


IDLE_S, COUNT = 0.05, 100


def test_u17_kept_connection_was_closed(row: Row) -> None:
    """100 requests, about when the upstreams close what is idle: none fails, and
    none is executed twice."""
    for box in row.rig.boxes:
        box.close_idle_after_s = IDLE_S
    calls = []
    for number, way in enumerate([STREAMS[0], SINGLES[0], STREAMS[2], SINGLES[4]] * (COUNT // 4)):
        calls.append(ask(row, way))
        # From a little sooner to a little later, so that the next request and the end
        # of its connection cross.
        time.sleep(IDLE_S - 0.010 + 0.0001 * number)
    assert {call.status for call in calls} == {200}
    assert arrivals(row) == COUNT
    assert (
        sum(event.kind == "closed" for box in row.rig.boxes for event in box.events) >= COUNT / 10
    )
