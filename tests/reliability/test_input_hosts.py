"""Rows B17, B18: what a client says of the server it means, and of itself, beside its token."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.reliability.sweep import CHAT, sweep
from tests.rig.http_client import Answer, Stream, encode_request, raw


def chats(row: Row) -> int:
    """How many prompts F got."""
    return sum(seen.path == "/api/chat" for seen in row.upstream.requests)


# B17

MALFORMED: tuple[str | None, ...] = (
    None,
    "",
    " ",
    "gw/api",
    "user@gw",
    "gw:port",
    "gw:",
    "gw:123456",
    "[::1",
    "::1",
    "gw?x",
    "gw#x",
    "gw,other",
)
MALFORMED += ("<gw>", "gw other", "gw\\x", "http://gw", "gw%00", "图", "gw/../api")
WELL_FORMED = (
    "gw",
    "gw.example:8080",
    "127.0.0.1",
    "192.0.2.7:1",
    "[::1]:8080",
    "evil.example",
    "GW",
    "xn--b.example",
)
LISTED = ("gw.example", "GW.EXAMPLE:99", "127.0.0.1", "127.0.0.1:1")
FOREIGN = (
    "evil.example",
    "gw.example.evil",
    "evil.gw.example",
    "localhost",
    "127.0.0.2",
    "127.1",
    "gw.example.",
    "[::1]",
)


def status(row: Row, host: str | None, token: str = TOKEN) -> int:
    """The status of a chat for which the client names this host."""
    items = {"Authorization": f"Bearer {token}", "Connection": "close"}
    data = encode_request("gw", "POST", "/api/chat", CHAT, items).replace(
        b"Host: gw\r\n", host_line(host)
    )
    return int(raw(row.port, data).split()[1])


def host_line(host: str | None) -> bytes:
    return b"" if host is None else b"Host: " + host.encode() + b"\r\n"


@nginx_decides
def test_b17_hosts(row: Row) -> None:
    for host in MALFORMED:
        assert [status(row, host, token) for token in (TOKEN, "unknown")] == [400, 400], host
    assert (
        raw(row.port, b"GET /api/tags HTTP/1.1\r\nHost: gw\r\nHost: other\r\n\r\n").split()[1]
        == b"400"
    )
    assert chats(row) == 0
    for host in WELL_FORMED:
        assert [status(row, host, token) for token in (TOKEN, "unknown")] == [200, 401], host
    with (
        Rig(config={"server": {"allowed_hosts": ["gw.example", "127.0.0.1"]}}) as strict,
        strict.row(row.door) as listed,
    ):
        assert {host: status(listed, host) for host in LISTED} == dict.fromkeys(LISTED, 200)
        assert {host: status(listed, host) for host in (*FOREIGN, *MALFORMED)} == dict.fromkeys(
            (*FOREIGN, *MALFORMED), 400
        )
        assert {status(listed, host, "unknown") for host in LISTED} == {401}
        assert chats(listed) == len(LISTED)
    row.measured("forms of a host", len(MALFORMED + WELL_FORMED + LISTED + FOREIGN), "")


# B18

#: A client that is no proxy; nginx is the only one that is believed.
OUTSIDE = "127.0.0.2"
CLAIMS: dict[str, list[tuple[str, str]]] = {
    "X-Forwarded-For": [("X-Forwarded-For", "6.6.6.6")],
    "X-Forwarded-For of a proxy": [("X-Forwarded-For", "127.0.0.1")],
    "X-Forwarded-For as a list": [("X-Forwarded-For", "6.6.6.6, 127.0.0.1, 10.0.0.1")],
    "X-Forwarded-For twice": [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "7.7.7.7")],
    "X-Forwarded-For with markup": [("X-Forwarded-For", '<script>"6.6.6.6"')],
    "X-Forwarded-Proto": [("X-Forwarded-Proto", "https")],
    "X-Forwarded-Host": [("X-Forwarded-Host", "evil.example")],
    "X-Forwarded-Port": [("X-Forwarded-Port", "6666")],
    "X-Forwarded-Prefix": [("X-Forwarded-Prefix", "/foo")],
    "X-Forwarded-Uri": [("X-Forwarded-Uri", "/api/tags")],
    "X-Forwarded-Path": [("X-Forwarded-Path", "/api/tags")],
    "X-Original-URL": [("X-Original-URL", "/api/tags")],
    "X-Rewrite-URL": [("X-Rewrite-URL", "/api/tags")],
    "X-HTTP-Method-Override": [("X-HTTP-Method-Override", "DELETE")],
    "X-Real-IP": [("X-Real-IP", "6.6.6.6")],
    "Forwarded": [("Forwarded", "for=6.6.6.6;host=evil.example;proto=https")],
    "SCRIPT_NAME": [("SCRIPT_NAME", "/foo")],
    "Script-Name": [("Script-Name", "/foo")],
    "PATH_INFO": [("PATH_INFO", "/api/tags")],
    "Path-Info": [("Path-Info", "/api/tags")],
    "REMOTE_ADDR": [("REMOTE_ADDR", "6.6.6.6")],
    "REMOTE-ADDR": [("REMOTE-ADDR", "6.6.6.6")],
    "REMOTE_USER": [("REMOTE_USER", "admin")],
    "X_FORWARDED_FOR": [("X_FORWARDED_FOR", "6.6.6.6")],
    "X_Forwarded_Proto": [("X_Forwarded_Proto", "https")],
    "hop by hop": [
        ("Connection", "close, X-Forwarded-For, Authorization"),
        ("X-Forwarded-For", "6.6.6.6"),
    ],
    "Client-IP": [
        ("Client-IP", "6.6.6.6"),
        ("True-Client-IP", "6.6.6.6"),
        ("CF-Connecting-IP", "6.6.6.6"),
    ],
}


@contextmanager
def asked_from(row: Row, path: str, items: list[tuple[str, str]]) -> Iterator[Stream]:
    """A request from an address that is no proxy's."""
    sock = socket.create_connection(
        ("127.0.0.1", row.port), timeout=10, source_address=(OUTSIDE, 0)
    )
    with Stream(sock) as stream:
        sock.sendall(encode_request("gw", "GET", path, None, items))
        yield stream


def ask(row: Row, path: str, token: str, claim: list[tuple[str, str]], id: str) -> Answer:
    items = [
        ("Authorization", f"Bearer {token}"),
        ("X-Request-Id", id),
        ("Connection", "close"),
        *claim,
    ]
    with asked_from(row, path, items) as stream:
        return Answer(stream.status, stream.headers, stream.read_all(), stream.complete)


def believed(row: Row, name: str) -> str | None:
    """What a claim made a difference to, if it did."""
    ids = [row.new_id() for _ in range(3)]
    cases = zip(
        ("/api/tags", "/foo/api/tags", "/api/tags"), (TOKEN, TOKEN, "unknown"), ids, strict=True
    )
    answers = [ask(row, path, token, CLAIMS[name], id) for path, token, id in cases]
    statuses = [answer.status for answer in answers]
    lines: list[dict[str, Any]] = [row.record(id) for id in ids]
    said = [(line["client"], line["path"], line["method"]) for line in lines]
    repeated = [answer.text for answer in answers if "evil" in str((answer.headers, answer.text))]
    right = [(OUTSIDE, path, "GET") for path in ("/api/tags", "/foo/api/tags", "/api/tags")]
    return (
        None
        if (statuses, said, repeated) == ([200, 404, 401], right, [])
        else f"{name}: {statuses} {said} {repeated}"
    )


@nginx_decides
def test_b18_claims_of_a_client(row: Row) -> None:
    assert sweep(lambda name: believed(row, name), CLAIMS) == []
    asked = [
        seen
        for seen in row.upstream.requests
        if "6.6.6.6" in str(seen.headers) or "evil" in str(seen.headers)
    ]
    assert asked == []
