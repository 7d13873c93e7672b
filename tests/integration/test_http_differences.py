"""The same bytes to gunicorn's own gevent worker and to the gateway's: what they
understand differently, and why.

The differences are facts about both, so each is in a table with what both make of the bytes. Where
gunicorn changes, the table is to be read again.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.rig.deadline import wait_until
from tests.rig.gateway import free_port
from tests.rig.http_cases import INVALID_BODIES, REFUSED, VALID, get
from tests.rig.smuggling import MARKER, ODD_BUT_PLAIN, SMUGGLING

PROJECT = Path(__file__).resolve().parents[2]

#: The limits of config/gunicorn.conf.py.
LIMITS = (
    "--limit-request-line=8190",
    "--limit-request-field_size=8190",
    "--limit-request-fields=100",
)
HEADERS = ("--header-map=drop", "--forwarder-headers=")

LAST = get(b"/last", b"Connection: close")

CASES: dict[str, bytes] = {
    **{name: data + LAST for name, (data, _) in VALID.items()},
    **{name: data + LAST for name, (data, _) in REFUSED.items()},
    **{f"body: {name}": data + LAST for name, data in INVALID_BODIES.items()},
    **{
        f"smuggling: {name}": data + MARKER for name, data in {**SMUGGLING, **ODD_BUT_PLAIN}.items()
    },
}


@contextmanager
def serving(worker: str) -> Iterator[int]:
    """The port of a gunicorn with a worker of this class."""
    port = free_port()
    options = (
        "--workers=1",
        f"--bind=127.0.0.1:{port}",
        "--keep-alive=5",
        "--no-control-socket",
        *LIMITS,
        *HEADERS,
    )
    command = [sys.executable, "-c", START, "-k", worker, *options, "tests.rig.echo_app:app"]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: understood(port, LAST), 20)
            yield port
        finally:
            process.terminate()


#: What config/gunicorn.conf.py does first.
START = "from gevent import monkey; monkey.patch_all(); from gunicorn.app.wsgiapp import run; run()"


def understood(port: int, data: bytes) -> list[str]:
    """What a server makes of the bytes of a connection: one line for each response."""
    received = bytearray()
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(65536):
            received += piece
    return list(responses(bytes(received)))


def responses(received: bytes) -> Iterator[str]:
    """The responses in these bytes: version and status, whether it is the last one, and
    what the application saw."""
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        body, received = rest[:size].decode("latin-1"), rest[size:]
        status = head[:12].decode().removeprefix("HTTP/1.1 ")
        is_last = b"connection: close" in head.lower()
        yield f"{status}{', last' * is_last} {body.strip()}" if status.endswith("200") else status


def in_short(understood: list[str]) -> str:
    """The responses without what the application saw, unless that is nothing."""
    shown = [
        text.partition(" {")[0] + " unreadable" * ("invalid body" in text) for text in understood
    ]
    return "; ".join(shown)


def difference(stock: list[str], ours: list[str]) -> str:
    """What two servers understood, in short; if that is the same, the keys of the
    environment that differ."""
    if in_short(stock) != in_short(ours):
        return f"{in_short(stock)} -> {in_short(ours)}"
    seen = [
        [dict(re.findall(r'"(\w+)": "([^"]*)"', text)) for text in understood]
        for understood in (stock, ours)
    ]
    return " ".join(
        sorted(
            key
            for one, other in zip(*seen, strict=True)
            for key in one
            if one[key] != other.get(key)
        )
    )


READ_AND_LAST = "200; 200, last"

#: Cases of the smuggling corpus whose chunks are invalid.
SMUGGLED_CHUNKS = (
    *(
        "chunk size with plus",
        "negative chunk",
        "chunk size with prefix",
        "chunk size with underscore",
    ),
    *("chunk size with a blank in front", "empty chunk size", "chunk size ended by CR alone"),
    *(
        "chunk size ended by LF alone",
        "huge chunk",
        "chunk that wraps around",
        "chunk without its end",
    ),
    *(
        "chunk ended by LF alone",
        "extension with bare LF",
        "extension with bare CR",
        "trailer with bare LF",
    ),
    *("trailer with a blank before its colon", "length in a trailer"),
)

#: Each reason with the cases that it explains: what gunicorn's worker
#: understands, and the gateway's.
DIFFERENCES: dict[str, dict[str, str]] = {
    (
        "a response to a body that can't be read says that it is the last one; gunicorn "
        "closes without saying so"
    ): {
        **{f"body: {name}": "200 unreadable -> 200, last unreadable" for name in INVALID_BODIES},
        **{
            f"smuggling: {name}": "200 unreadable -> 200, last unreadable"
            for name in SMUGGLED_CHUNKS
        },
        # Httptools is stricter here.
        "body: extension with blanks": f"{READ_AND_LAST} -> 200, last unreadable",
    },
    "trailers are ignored, whatever their names; gunicorn refuses some": {
        "trailer that is no trailer": f"200 unreadable -> {READ_AND_LAST}",
        "smuggling: trailers": f"200 unreadable -> {READ_AND_LAST}",
    },
    "chunk extensions are ignored, and httptools checks their characters only": {
        "chunk extension without a name": f"200 unreadable -> {READ_AND_LAST}",
    },
    "close is an option among others (RFC 9110, section 7.6.1); gunicorn takes it only alone": {
        "close among options": f"200; {READ_AND_LAST} -> 200, last",
    },
    (
        "the host of an absolute target replaces the header, and the path is what follows it (RFC "
        "9112, section 3.2.2)"
    ): {
        "absolute form": "HTTP_HOST RAW_URI",
        "absolute form without a path": "HTTP_HOST PATH_INFO RAW_URI",
        "absolute form with a query only": "HTTP_HOST PATH_INFO RAW_URI",
        "smuggling: absolute form": "RAW_URI",
        "smuggling: absolute form of another host": "HTTP_HOST RAW_URI",
    },
    "a response has the version of its server, not that of its request (RFC 9110, section 2.5)": {
        "HTTP/1.0": "HTTP/1.0 200, last -> 200, last",
        "HTTP/1.0 kept": f"HTTP/1.0 200; {READ_AND_LAST} -> 200; {READ_AND_LAST}",
        "HTTP/1.0 with a length": "HTTP/1.0 200, last -> 200, last",
        "expected 100 in HTTP/1.0": "HTTP/1.0 200, last -> 200, last",
    },
    "a body that has arrived already is not asked for (RFC 9110, section 10.1.1)": {
        "expected 100": f"100; {READ_AND_LAST} -> {READ_AND_LAST}",
        "expected 100 in capitals": f"100; {READ_AND_LAST} -> {READ_AND_LAST}",
        "smuggling: expects to be asked": f"100; {READ_AND_LAST} -> {READ_AND_LAST}",
    },
    "targets that RFC 9112, section 3.2, does not define are refused": {
        "fragment": f"{READ_AND_LAST} -> 400",
        "absolute form of another scheme": f"{READ_AND_LAST} -> 400",
        "absolute form with a user": f"{READ_AND_LAST} -> 400",
        "absolute form without a host": f"{READ_AND_LAST} -> 400",
    },
    (
        "httptools knows the registered methods, 1.0 and 1.1; no route has another method, and no "
        "client another version"
    ): {
        "unknown method": f"{READ_AND_LAST} -> 400",
        "HTTP/1.2": f"HTTP/1.2 {READ_AND_LAST} -> 400",
        "smuggling: unknown version": f"HTTP/1.2 {READ_AND_LAST} -> 400",
    },
    "a length that other programs can't represent could be read two ways": {
        "length beyond 64 bits": "200 -> 400",
        "smuggling: length beyond 64 bits": "200 -> 400",
    },
    (
        "chunked is the only coding: the application would take gzip for the body "
        "(RFC 9112, section 7)"
    ): {
        "gzip, chunked": "200, last -> 501",
        "smuggling: gzip, chunked": "200, last -> 501",
    },
    "other notations of chunked are refused: somebody on the way may not know them": {
        "identity, chunked": f"{READ_AND_LAST} -> 400",
        "tab behind the coding": f"{READ_AND_LAST} -> 400",
    },
    "httptools refuses these before it is known whether a coding is one that exists": {
        "empty coding": "501 -> 400",
        "smuggling: empty coding": "501 -> 400",
        "smuggling: comma in front": "501 -> 400",
        "smuggling: two codings, the second unknown": "501 -> 400",
    },
}


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Of both servers."""
    with serving("gevent") as stock, serving("ollama_proxy.server.worker.Worker") as ours:
        yield stock, ours


def test_differences_are_known(ports: tuple[int, int]) -> None:
    both = {name: [understood(port, data) for port in ports] for name, data in CASES.items()}
    found = {name: difference(stock, ours) for name, (stock, ours) in both.items() if stock != ours}
    assert found == {name: short for cases in DIFFERENCES.values() for name, short in cases.items()}


def test_what_each_case_is_meant_to_be(ports: tuple[int, int]) -> None:
    """The list of cases is right about the gateway's worker, over a socket as well."""
    for name, (_, expected) in VALID.items():
        answered = [text[:3] for text in understood(ports[1], CASES[name])]
        assert answered[: len(expected)] == ["200"] * len(expected), name
    for name, (_, status) in REFUSED.items():
        assert understood(ports[1], CASES[name]) == [str(status)], name
    for name in INVALID_BODIES:
        assert in_short(understood(ports[1], CASES[f"body: {name}"])) == "200, last unreadable", (
            name
        )
