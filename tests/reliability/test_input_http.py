"""Rows B1-B3, B13, B25: HTTP itself, as raw bytes: two readings, too much of
it, and other protocols."""

from __future__ import annotations

import gzip
import json
import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zstandard

from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.reliability.sweep import BODIES, CHAT, sweep
from tests.reliability.test_process_host import memory_mib
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import Json
from tests.rig.http_client import Answer, Stream, bearer, encode_request, raw, request
from tests.rig.smuggling import INNER, MARKER, ODD_BUT_PLAIN, PATH, SMUGGLING, chunks, numbered

LIMIT = 1 << 20
CHATS = ("/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    limits = {"client_max_body_size 64m;": "client_max_body_size 1m;"}
    with Rig(config={"server": {"max_body": "1MiB"}}, nginx=limits) as running:
        yield running


def statuses(answer: bytes) -> list[int]:
    """The status of every answer on a connection, but for those that only say: go on."""
    return [
        int(status) for status in re.findall(rb"HTTP/1\.\d (\d{3}) ", answer) if status != b"100"
    ]


def posts(row: Row) -> list[bytes]:
    """The body of every POST that reached F."""
    return [seen.body for seen in row.upstream.requests if seen.method == "POST"]


# B1

CASES = [*SMUGGLING.items(), *ODD_BUT_PLAIN.items()]

#: Not whole by any reading: whoever waits for the rest is told that there is none.
UNFINISHED = ("huge chunk", "chunk that wraps around")

#: For nginx a line also ends at a bare LF. What it reads is three requests, and it
#: sends on three plain ones.
THREE_FOR_NGINX = (
    "bare LF ends the head",
    "chunk size ended by LF alone",
    "chunk ended by LF alone",
    "extension with bare LF",
    "trailer with bare LF",
    "trailer with a blank before its colon",
)


def tags(row: Row, number: int) -> list[str]:
    """Which bodies of a case reached F, in their order."""
    found = [re.search(rb'"tag":"(\w+)-%04d"' % number, body) for body in posts(row)]
    return [match[1].decode() for match in found if match]


def misread(row: Row, number: int) -> str | None:
    """How a case was read as something else than one request and its marker, if it was."""
    name, data = CASES[number]
    half_close = row.door == "gateway" and name in UNFINISHED
    answer = raw(
        row.port, numbered(data + MARKER, number), timeout=3, quiet_s=2, half_close=half_close
    )
    codes, seen = statuses(answer), tags(row, number)
    three = row.door == "nginx" and name in THREE_FOR_NGINX
    is_refused = set(codes) <= {400, 401, 404, 405, 413, 501, 505} and not seen
    is_read = seen in (
        ["first"],
        ["first", "marker"],
        ["marker"],
        ["first", "inner", "marker"][: 3 * three],
    )
    agreed = codes.count(200) == len(seen) and len(codes) <= 2 + three
    return (
        None
        if codes and (is_refused or is_read) and agreed
        else f"{name}: answers {codes}, upstream saw {seen}"
    )


@nginx_decides
def test_b1_smuggling(row: Row) -> None:
    row.upstream.script(PATH, [Json({"model_info": {}})])
    assert sweep(lambda number: misread(row, number), range(len(CASES))) == []
    two = raw(row.port, numbered(INNER + MARKER, 9999))
    assert (statuses(two), tags(row, 9999)) == ([200, 200], ["inner", "marker"])
    row.measured("ways of framing", len(CASES), "")


# B2


def head(path: str, *more: bytes) -> bytes:
    """A POST with these headers behind the usual ones."""
    lines = (
        b"POST %b HTTP/1.1" % path.encode(),
        b"Host: gw",
        b"Authorization: Bearer " + TOKEN.encode(),
        *more,
    )
    return b"\r\n".join([*lines, b"", b""])


def sixty_megabytes(row: Row, path: str) -> Answer:
    """The answer to a chunked body of 60 MB, sent for as long as somebody takes it."""
    piece = b"%x\r\n%b\r\n" % (LIMIT, b" " * LIMIT)
    with socket.create_connection(("127.0.0.1", row.port), timeout=10) as sock:
        stream = Stream(sock)
        sock.sendall(head(path, b"Transfer-Encoding: chunked", b"Content-Type: application/json"))
        with suppress(ConnectionError):  # nobody takes more: the answer is there
            for _ in range(60):
                if select.select([sock], [], [], 0)[0]:
                    break
                sock.sendall(piece)
        stream.read_head()
        return Answer(stream.status, stream.headers, stream.read_all(), stream.complete)


def one_byte_more_in_chunks(row: Row, path: str) -> Answer:
    """The answer to a body that is valid up to its last byte, which is one too many."""
    body = json.dumps(BODIES[path]).encode().ljust(LIMIT)
    return row.ask("POST", path, chunks(body, b" "), {"Transfer-Encoding": "chunked"})


def one_byte_more(row: Row, path: str) -> Answer:
    """The answer to a body that is valid, declared, and one byte over the limit."""
    return row.ask("POST", path, json.dumps(BODIES[path]).encode().ljust(LIMIT + 1))


WAYS = {
    "60 MB in chunks": sixty_megabytes,
    "a byte more in chunks": one_byte_more_in_chunks,
    "a byte more, declared": one_byte_more,
}


@nginx_decides
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_b2_body_over_the_limit(row: Row, way: Callable[[Row, str], Answer]) -> None:
    for path in CHATS:
        assert_error(way(row, path), dialect_of(path), 413)
    assert posts(row) == []
    whole = json.dumps(CHAT).encode().ljust(LIMIT)
    assert row.ask("POST", "/api/chat", whole).status == 200
    assert [len(body) for body in posts(row)] == [LIMIT]


# B3

#: What a line may be long, without its end, and how many headers there may be. nginx
#: adds headers of its own.
LINE_BYTES, HEADER_BYTES = 8190, 8188
HEADERS = {"gateway": 100, "nginx": 99}


def request_line(size: int) -> bytes:
    start, end = b"GET /v1/models?", b" HTTP/1.1"
    return start + b"x" * (size - len(start) - len(end)) + end


def sized_head(line: bytes, *headers: bytes) -> bytes:
    usual = (b"Host: gw", b"Connection: close", b"Authorization: Bearer " + TOKEN.encode())
    return b"\r\n".join([line, *usual, *headers, b"", b""])


def with_line(size: int) -> bytes:
    return sized_head(request_line(size))


def with_header(size: int) -> bytes:
    return sized_head(b"GET /v1/models HTTP/1.1", b"X: ".ljust(size, b"x"))


def with_headers(count: int) -> bytes:
    return sized_head(
        b"GET /v1/models HTTP/1.1", *(b"X-%d: y" % number for number in range(count - 3))
    )


@nginx_decides
def test_b3_heads_over_the_limit(row: Row) -> None:
    limits = [
        (with_line, LINE_BYTES, 414),
        (with_header, HEADER_BYTES, 431),
        (with_headers, HEADERS[row.door], 431),
    ]
    for made, limit, status in limits:
        within, over = raw(row.port, made(limit)), raw(row.port, made(limit + 1))
        assert (statuses(within), statuses(over)) == ([200], [status])
        error = json.loads(over.partition(b"\r\n\r\n")[2])["error"]
        # Where a line has no end there is no path, and so no dialect.
        assert isinstance(error, str if status == 414 else dict)
    assert not [
        seen for seen in row.upstream.requests if "x" * 80 in seen.raw_path or seen.header("x")
    ]


# B13

METHODS = (
    "FOO",
    "TRACE",
    "PROPFIND",
    "M-SEARCH",
    "PATCH",
    "get",
    "CONNECT",
    "PRI",
    "POST2",
    "G@T",
    "A" * 40,
)
TARGETS = (
    b"CONNECT gw:443 HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"OPTIONS * HTTP/1.1",
    b"TRACE * HTTP/1.1",
)
UPGRADES = {
    "websocket": (
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        b"\x81\x82abcdxy",
    ),
    "h2c": (
        {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
        },
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ),
}


def chats_seen(row: Row) -> list[str]:
    """Methods of what reached F at the path of the row's requests."""
    return [seen.method for seen in row.upstream.requests if seen.path == "/api/chat"]


@nginx_decides
def test_b13_methods_and_upgrades(row: Row) -> None:
    for method in METHODS:
        answer = request(row.url, method, "/api/chat", CHAT, bearer(TOKEN))
        assert answer.status in (400, 405), method
        assert answer.json()["error"]
    for line in TARGETS:
        codes = statuses(raw(row.port, sized_head(line), quiet_s=0.3))
        assert codes and set(codes) <= {400, 404, 405, 505}, line
    assert chats_seen(row) == []
    for headers, frames in UPGRADES.values():
        asked = encode_request("gw", "POST", "/api/chat", CHAT, {**bearer(TOKEN), **headers})
        codes = statuses(raw(row.port, asked + frames, quiet_s=0.3))
        assert codes[0] in (200, 400, 405)
        assert set(codes[1:]) <= {400, 505}
    assert {seen.header("upgrade") for seen in row.upstream.requests} == {None}


# B25

PLAIN = json.dumps(CHAT).encode()
#: Memory that the workers may take for bombs of 512 MiB.
FOR_BOMBS_MIB = 48


def unreadable() -> dict[str, tuple[bytes, str, int]]:
    """Bodies with their coding, and the status of the answer."""
    bomb, packed = bytes(512 << 20), gzip.compress(PLAIN)
    return {
        "a bomb of gzip": (gzip.compress(bomb), "gzip", 413),
        "a bomb of zstd": (zstandard.compress(bomb), "zstd", 413),
        "cut gzip": (packed[:-9], "gzip", 400),
        "cut zstd": (zstandard.compress(PLAIN)[:-9], "zstd", 400),
        "gzip called zstd": (packed, "zstd", 400),
        "plain called gzip": (PLAIN, "gzip", 400),
        "twice": (gzip.compress(packed), "gzip, gzip", 415),
        "brotli": (PLAIN, "br", 415),
    }


def test_b25_compressed_bodies(row: Row) -> None:
    bodies = unreadable().values()
    before = memory_mib(row.gateway)
    for path in CHATS:
        for body, coding, status in bodies:
            assert_error(
                row.ask("POST", path, body, {"Content-Encoding": coding}), dialect_of(path), status
            )
    assert posts(row) == []
    grown = memory_mib(row.gateway) - before
    row.measured("memory after bombs", grown, "MiB")
    assert grown < FOR_BOMBS_MIB
    for coding, data in (("gzip", gzip.compress(PLAIN)), ("zstd", zstandard.compress(PLAIN))):
        assert row.ask("POST", "/api/chat", data, {"Content-Encoding": coding}).status == 200
    assert posts(row) == [PLAIN, PLAIN]
