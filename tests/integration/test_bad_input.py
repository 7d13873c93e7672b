"""Requests that are malformed, hostile or ambiguous, as raw bytes: refused or read in exactly
one way, never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.app import test_bad_input
from tests.app.test_bad_input import CHAT, CHATS, posts_seen
from tests.rig.calls import TOKEN
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, encode_request, raw
from tests.rig.smuggling import INNER, MARKER, chunks


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    with checked_gateway(shared_upstream, TOKEN, unsaid=("Traceback",)) as running:
        yield running


upstream = test_bad_input.upstream


# Bodies that are not read.

UNREAD = {
    "wrong token": ("POST", "/api/show", "wrong", {}),
    "unknown address": ("POST", "/nope", TOKEN, {}),
    "wrong method": ("PUT", "/api/show", TOKEN, {}),
    "multipart": ("POST", "/api/show", TOKEN, {"Content-Type": "multipart/form-data"}),
    "refused route": ("POST", "/api/me", TOKEN, {}),
    "no body expected": ("GET", "/api/tags", TOKEN, {}),
    "public page": ("GET", "/livez", TOKEN, {}),
    "options": ("OPTIONS", "/api/show", TOKEN, {}),
}


@pytest.mark.parametrize(("method", "path", "token", "headers"), UNREAD.values(), ids=UNREAD.keys())
@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_a_body_that_nobody_wanted_is_never_the_next_request(
    gateway: Gateway,
    upstream: FaultUpstream,
    method: str,
    path: str,
    token: str,
    headers: dict[str, str],
    framing: str,
) -> None:
    more = {"Transfer-Encoding": "chunked"} if framing == "chunked" else {}
    body = chunks(INNER) if framing == "chunked" else INNER
    sent = {**bearer(token), "Connection": "keep-alive", **headers, **more}
    answer = raw(gateway.port, encode_request("gw", method, path, body, sent) + MARKER, quiet_s=0.3)
    assert answer.startswith(b"HTTP/1.1 ")
    assert not [seen for seen in posts_seen(upstream) if b'"inner-' in seen]
    assert len(posts_seen(upstream)) <= 1


# Bodies that do not come whole.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 1000", json.dumps(CHAT).encode()),
        (
            b"Transfer-Encoding: chunked",
            b"%x\r\n%b\r\n" % (len(json.dumps(CHAT)), json.dumps(CHAT).encode()),
        ),
        (b"Transfer-Encoding: chunked", b"fff\r\n" + json.dumps(CHAT).encode()),
        (b"Transfer-Encoding: chunked", b"zz\r\n" + json.dumps(CHAT).encode()),
    ],
    ids=["length", "between chunks", "inside a chunk", "no chunk at all"],
)
def test_a_body_that_stops_in_its_middle_is_never_sent_on(
    gateway: Gateway, upstream: FaultUpstream, path: str, framing: bytes, sent: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer %b\r\n" % (
        path.encode(),
        TOKEN.encode(),
    )
    answer = raw(gateway.port, head + framing + b"\r\n\r\n" + sent, half_close=True)
    assert answer.split()[1] == b"400"
    assert posts_seen(upstream) == []
