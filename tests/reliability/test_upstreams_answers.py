"""Answers that are odd or wrong: what is right in them arrives, what is not
becomes an honest error."""

from __future__ import annotations

import gzip
import zlib
from itertools import chain
from typing import Any

from tests.reliability.asked import (
    SINGLES,
    STREAMS,
    WAYS,
    Fault,
    ask_all,
    ask_under,
    encoded,
    script_all,
)
from tests.reliability.rig import Row
from tests.rig import NDJSON
from tests.rig.calls import Face, is_well_ended, resident_kib
from tests.rig.fault_upstream import Chunk, Cut, FaultUpstream, Head, Json, Lines, Send, Whole

JSON = {"Content-Type": "application/json"}
STAMP = {"created_at": "2026-01-01T00:00:00.000000000Z"}
DONE = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
CANARY = "canary-of-the-upstream"


def last(face: Face, **fields: Any) -> dict[str, Any]:
    """The line that ends an answer well."""
    return {**face.line, **DONE, "embeddings": [[0.5]], **fields}


def test_u16_redirect(row: Row) -> None:
    """Nobody follows it: what it points to hears nothing, and the client does
    not learn where that is."""
    row.allow(502)
    with FaultUpstream() as canary:
        for status, call in ask_under(
            row, {str(status): redirect(canary, status) for status in REDIRECTS}
        ):
            assert (call.status, call.answer.headers.get("Location")) == (502, None), status
            assert str(canary.port) not in call.error()
        assert (canary.requests, canary.events) == ([], [])


REDIRECTS = (301, 302, 303, 307, 308)


def redirect(target: FaultUpstream, status: int) -> Fault:
    """To the same path elsewhere."""
    return lambda face: [Whole(b"", status, {"Location": target.url + face.upstream_path})]


def gzipped_zeros(size: int) -> bytes:
    """So many zeros, compressed."""
    packer, zeros = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()


def test_u18_gzip_bomb(row: Row) -> None:
    """Nothing but identity is asked for, whatever the client takes; what comes all the
    same is not unpacked."""
    row.allow(502)
    once = gzipped_zeros(256 << 20)
    bombs = {"gzip": once, "gzip, gzip": gzip.compress(once)}
    before = {pid: resident_kib(pid) for pid in row.gateway.worker_pids()}
    for coding, bomb in bombs.items():
        headers = {**JSON, "Content-Encoding": coding}
        script_all(
            row.upstream, lambda face, bomb=bomb, headers=headers: [Whole(bomb, 200, headers)]
        )  # type: ignore[misc]
        for call in ask_all(row, WAYS, headers={"Accept-Encoding": "gzip, deflate, br, zstd"}):
            assert (call.status, bool(call.error())) == (502, True), coding
    grown = max(resident_kib(pid) - before[pid] for pid in before) / 1024
    assert grown < 20
    row.measured("memory of a worker", max(0.0, grown), "MiB")
    asked = [
        seen.header("accept-encoding") for seen in row.upstream.requests if seen.method == "POST"
    ]
    assert set(asked) == {"identity"}


def head(*lines: str) -> Send:
    """The head of an answer, to the letter."""
    return Send("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode("latin-1"))


BAD_HEADS = {
    "1 MiB header": head("Content-Type: application/json", f"X-Long: {CANARY}{'x' * (1 << 20)}"),
    "5,000 headers": head(*(f"X{n}: 1" for n in range(5000)), "Content-Length: 2"),
    "two lengths": head("Content-Length: 2", "Content-Length: 40", f"X-Seen: {CANARY}"),
    "length and chunks": head(
        "Content-Length: 2", "Transfer-Encoding: chunked", f"X-Seen: {CANARY}"
    ),
    "length that is no number": head("Content-Length: two", f"X-Seen: {CANARY}"),
    "header without a name": head(f": {CANARY}", "Content-Length: 2"),
    "control character in a value": head(f"X-Seen: a\x01b{CANARY}", "Content-Length: 2"),
    "NUL in a value": head(f"X-Seen: a\0b{CANARY}", "Content-Length: 2"),
    "CR in a value": head(f"X-Seen: a\rX-Other: {CANARY}", "Content-Length: 2"),
    "not HTTP": Send(f"220 {CANARY} ESMTP ready\r\n".encode()),
    "unknown version": Send(f"HTTP/9.7 200 OK\r\nContent-Length: 2\r\n\r\n{{}}{CANARY}".encode()),
    "no status": Send(f"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{{}}{CANARY}".encode()),
}


def test_u19_bad_http(row: Row) -> None:
    """502, and not a byte of it reaches the client."""
    row.allow(502)
    faults: dict[str, Fault] = {name: following(bad) for name, bad in BAD_HEADS.items()}
    for name, call in ask_under(row, faults):
        assert call.status == 502, name
        assert CANARY not in call.answer.text + str(call.answer.headers), name
        assert call.error()


def following(bad: Send) -> Fault:
    """A small body behind this head."""
    return lambda _: [bad, Send(b"{}"), Cut()]


def test_u20_html_page(row: Row) -> None:
    """A page of something in front of the upstream is no answer, and is never shown as one."""
    row.allow(502)
    for status, call in ask_under(
        row, {str(status): page(status) for status in (200, 404, 500, 503)}
    ):
        assert call.status == 502, status
        assert CANARY not in call.answer.text and "<" not in call.answer.text, status
        assert call.error()


def page(status: int) -> Fault:
    """A page with this status."""
    text = f"<html><script>alert('{CANARY}')</script></html>".encode()
    return lambda _: [Whole(text, status, {"Content-Type": "text/html"})]


def test_u22_no_usage_at_the_end(row: Row) -> None:
    """Counts are estimated, and marked as estimates."""
    bare = {"done": True, "done_reason": "stop"}
    script_all(
        row.upstream, lambda face: [Lines([*[face.line | STAMP] * 20, {**face.line, **bare}])]
    )
    for call in ask_all(row, STREAMS):
        assert is_well_ended(call.answer.body, call.way.face)
        line = row.record(call.id)
        assert (line["state"], line["estimated"]) == ("ok", True)
        assert 8 <= line["eval_count"] <= 30 and line["prompt_eval_count"] > 0


WILD: dict[str, bytes] = {
    "negative": b"-5",
    "text": b'"many"',
    "huge integer": b"1" + b"0" * 30,
    "1e300": b"1e300",
    "true": b"true",
    "null": b"null",
    "list": b"[1]",
}


def test_u23_usage_that_is_no_number(row: Row) -> None:
    """It counts nothing, the answer arrives all the same, and what the log says is marked. Said
    twice it counts once; NaN makes a line that nobody can read."""
    streams = {name: wild_stream(value) for name, value in WILD.items()}
    singles = {name: wild_single(value) for name, value in WILD.items()}
    for name, call in chain(ask_under(row, streams, STREAMS), ask_under(row, singles, SINGLES)):
        line = row.record(call.id)
        assert (call.status, line["state"]) == (200, "ok"), name
        assert line["estimated"] or not (line["prompt_eval_count"] or line["eval_count"]), (
            name,
            line,
        )
        assert (
            0 <= (line["prompt_eval_count"] or 0) < 100 and 0 <= (line["eval_count"] or 0) < 100
        ), (name, line)
    twice: dict[str, Fault] = {"twice": wild_stream(b'3,"eval_count":3')}
    counts = {row.record(call.id)["eval_count"] for _, call in ask_under(row, twice, STREAMS)}
    assert counts == {3}
    unreadable: dict[str, Fault] = {"NaN": wild_stream(b"NaN")}
    states = {row.record(call.id)["state"] for _, call in ask_under(row, unreadable, STREAMS)}
    assert states == {"upstream_error"}


def wild_stream(value: bytes) -> Fault:
    """A stream with this in place of every count."""
    return lambda face: [Head(200, NDJSON), Chunk(encoded(face.line) + wild_end(face, value))]


def wild_single(value: bytes) -> Fault:
    """The same as one document."""
    return lambda face: [Whole(wild_end(face, value), 200, JSON)]


def wild_end(face: Face, value: bytes) -> bytes:
    """The last line, with this in place of every count."""
    return encoded(last(face, prompt_eval_count="?", eval_count="?")).replace(b'"?"', value)


ONE_HOP = {
    "Set-Cookie": "sid=user-a; Path=/",
    "Connection": "keep-alive, X-Private",
    "Keep-Alive": "timeout=5",
    "Server": "hidden/1.0",
    "X-Private": "for this hop",
    "Proxy-Authenticate": "Basic",
}


def test_u24_headers_of_one_hop(row: Row) -> None:
    """They and cookies stop at the gateway, and none of them comes back with
    anybody's next request."""
    script_all(row.upstream, lambda face: [Json(last(face), 200, ONE_HOP)])
    for call in [*ask_all(row, SINGLES), *ask_all(row, SINGLES)]:
        assert call.status == 200
        names = {name.lower() for name, _ in call.answer.headers}
        assert not names & {"set-cookie", "keep-alive", "x-private", "proxy-authenticate"}
        assert "hidden" not in str(call.answer.headers)
    script_all(
        row.upstream, lambda face: [Head(200, {**NDJSON, **ONE_HOP}), Chunk(encoded(last(face)))]
    )
    for call in ask_all(row, STREAMS, headers={"Cookie": "sid=user-b"}):
        assert not call.answer.headers.get("Set-Cookie")
    asked = [seen for seen in row.upstream.requests if seen.method == "POST"]
    assert len(asked) == 2 * len(SINGLES) + len(STREAMS)
    assert not [seen for seen in asked if seen.header("cookie") or seen.header("x-private")]
