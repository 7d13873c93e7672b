"""The whole way in: a real nginx with the shipped site in front of a real gateway in front
of a scripted upstream."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.app import test_bad_input
from tests.app.test_bad_input import CHAT, CHATS, posts_seen
from tests.rig import fault_upstream as do
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, open_stream, raw, request
from tests.rig.nginx import Nginx

TOKEN = "sk-team-token-1"
LIMIT = 64 * 1024 * 1024
upstream = test_bad_input.upstream
GOOD = {"model": MODEL, "message": {"role": "assistant", "content": "hi"}, "done": False}


shared_gateway = module_fixture(
    lambda shared_upstream: checked_gateway(shared_upstream, TOKEN, seconds=15, workers=1)
)


# What may pass.


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("prefix", ["", f"/k/{TOKEN}"])
def test_requests_pass_and_nginx_changes_nothing_of_them(
    nginx: Nginx, gateway: Gateway, upstream: FaultUpstream, path: str, prefix: str
) -> None:
    headers = {**({} if prefix else bearer(TOKEN)), "X-Request-Id": "through"}
    answers = [
        request(url, "POST", prefix + path, CHAT, headers) for url in (gateway.url, nginx.url)
    ]
    assert [answer.status for answer in answers] == [200, 200]
    assert posts_seen(upstream)[0] == posts_seen(upstream)[1]
    assert answers[1].headers.get_all("x-request-id") == ["through"]
    assert answers[1].headers.get_all("cache-control") == ["no-store"]


@pytest.mark.parametrize("path", CHATS)
def test_the_first_token_of_a_stream_comes_before_the_second_is_made(
    nginx: Nginx, upstream: FaultUpstream, path: str
) -> None:
    upstream.script("/api/chat", [do.Lines([GOOD]), do.WaitForPeerClose(10)])
    with open_stream(nginx.url, "POST", path, {**CHAT, "stream": True}, bearer(TOKEN)) as stream:
        assert any(
            b'"hi"' in line.data for line in stream.lines(timeout=3) if line.data or stream.close()
        )


@pytest.mark.parametrize("path", CHATS)
def test_a_client_that_leaves_frees_the_upstream_through_nginx_too(
    nginx: Nginx, upstream: FaultUpstream, path: str
) -> None:
    upstream.script("/api/chat", [do.WaitForPeerClose(10)])
    stream = open_stream(nginx.url, "POST", path, CHAT, bearer(TOKEN), wait_for_head=False)
    connection = upstream.wait_for_request(1, "/api/chat").connection
    stream.close()
    upstream.wait_peer_closed(connection)


@pytest.mark.parametrize("path", CHATS)
def test_an_upstream_that_breaks_off_is_no_clean_end_behind_nginx(
    nginx: Nginx, upstream: FaultUpstream, path: str
) -> None:
    upstream.script("/api/chat", [do.Lines([GOOD]), do.Cut()])
    with open_stream(nginx.url, "POST", path, {**CHAT, "stream": True}, bearer(TOKEN)) as stream:
        text = stream.read_all().decode()
    assert '"error"' in text.splitlines()[-1] or '"error"' in text.splitlines()[-2]
    assert "[DONE]" not in text and '"done":true' not in text


def image_request(size: int) -> dict[str, Any]:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n".ljust(size, b"\0")).decode()
    return {**CHAT, "messages": [{"role": "user", "content": "what is this?", "images": [picture]}]}


@pytest.mark.parametrize("server", ["gateway", "nginx"])
def test_an_image_of_25_mebibytes_is_taken(request_server: str, upstream: FaultUpstream) -> None:
    body = image_request(25 * 1024 * 1024)
    assert (
        request(request_server, "POST", "/api/chat", body, bearer(TOKEN), timeout=20).status == 200
    )
    assert len(posts_seen(upstream)[0]) == len(json.dumps(body))


@pytest.fixture
def request_server(server: str, nginx: Nginx, gateway: Gateway) -> str:
    """The address of the server that a test names."""
    return nginx.url if server == "nginx" else gateway.url


@pytest.mark.parametrize("server", ["gateway", "nginx"])
@pytest.mark.parametrize("path", CHATS)
def test_the_limit_for_bodies_is_the_same_at_both(
    request_server: str, upstream: FaultUpstream, path: str
) -> None:
    headers = {
        **bearer(TOKEN),
        "Content-Length": str(LIMIT + 1),
        "Content-Type": "application/json",
    }
    assert_error(request(request_server, "POST", path, b"", headers), dialect_of(path), 413)
    assert posts_seen(upstream) == []


@pytest.mark.parametrize("server", ["gateway", "nginx"])
def test_a_body_of_exactly_the_limit_passes_both(
    request_server: str, upstream: FaultUpstream
) -> None:
    body = json.dumps(CHAT).encode().ljust(LIMIT)
    assert (
        request(request_server, "POST", "/api/chat", body, bearer(TOKEN), timeout=30).status == 200
    )
    assert len(posts_seen(upstream)[0]) == LIMIT


# What must not pass.


@pytest.mark.parametrize("path", CHATS)
def test_errors_of_the_gateway_pass_as_they_are(nginx: Nginx, gateway: Gateway, path: str) -> None:
    for token, method in (("wrong", "POST"), (TOKEN, "GET"), (TOKEN, "POST")):
        body = b"{" if method == "POST" else None
        headers = {**bearer(token), "X-Request-Id": "the-same"}
        answers = [request(url, method, path, body, headers) for url in (gateway.url, nginx.url)]
        assert answers[0].status == answers[1].status
        assert answers[0].status == 405 or answers[0].body == answers[1].body
        assert_error(answers[1], dialect_of(path), answers[0].status)


HTTP_ERRORS = [
    (b"nonsense\r\n\r\n", 400, "native"),
    (b"GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "openai"),
    (b"GET /v1/" + b"x" * 9000 + b" HTTP/1.1\r\nHost: gw\r\n\r\n", 414, None),
    (b"GET /v1/models HTTP/1.1\r\nHost: gw\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "openai"),
    (b"GET /api/tags HTTP/1.1\r\nHost: gw\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "native"),
    (b"TRACE /api/tags HTTP/1.1\r\nHost: gw\r\n\r\n", 405, "native"),
    (b"CONNECT gw:443 HTTP/1.1\r\nHost: gw\r\n\r\n", None, None),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None, None),
]


@pytest.mark.parametrize(("data", "status", "dialect"), HTTP_ERRORS)
def test_errors_that_nginx_makes_are_json(
    nginx: Nginx, data: bytes, status: int | None, dialect: str | None
) -> None:
    head, _, body = raw(nginx.port, data, quiet_s=0.3).partition(b"\r\n\r\n")
    if status is None:
        assert not head or head.split()[1] in (b"400", b"405", b"505")
        return
    assert int(head.split()[1]) == status
    assert b"application/json" in head and b"no-store" in head
    error = json.loads(body)["error"]
    assert dialect is None or isinstance(error, str if dialect == "native" else dict)


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
        },
    ],
)
def test_a_connection_is_never_switched(nginx: Nginx, headers: dict[str, str]) -> None:
    assert request(nginx.url, "GET", "/api/tags", headers={**bearer(TOKEN), **headers}).status in (
        200,
        400,
        405,
    )


def test_a_websocket_is_declined_at_once(nginx: Nginx) -> None:
    """nginx forwards no Upgrade, but the rest of the handshake."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "GnXgLiLIVtgK+NmQjJSizA==",
    }
    answer = request(nginx.url, "GET", "/v1/responses", headers={**bearer(TOKEN), **handshake})
    assert (answer.status, answer.headers.get("Upgrade")) == (426, "HTTP/1.1")
    assert answer.json()["error"]["code"] == "no_websocket"


MOVERS = {
    "SCRIPT_NAME": "/foo",
    "Script-Name": "/foo",
    "PATH_INFO": "/api/tags",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Prefix": "/foo",
    "X-Forwarded-Uri": "/api/tags",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Original-URL": "/api/tags",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;host=evil.example",
    "X_FORWARDED_FOR": "6.6.6.6",
    "REMOTE_ADDR": "6.6.6.6",
    "Connection": "close, X-Forwarded-For, Authorization",
}


@pytest.mark.parametrize("name", MOVERS)
def test_headers_of_clients_move_neither_paths_nor_rights_nor_addresses(
    nginx: Nginx, gateway: Gateway, upstream: FaultUpstream, name: str
) -> None:
    forged = {name: MOVERS[name], "X-Request-Id": f"forged-{name}"}
    assert (
        request(nginx.url, "GET", "/foo/api/tags", headers={**bearer(TOKEN), **forged}).status
        == 404
    )
    assert (
        request(nginx.url, "GET", "/api/tags", headers={**bearer("wrong"), **forged}).status == 401
    )

    def clients() -> list[str]:
        return [
            line["client"]
            for line in gateway.log_lines("access")
            if line["id"] == forged["X-Request-Id"]
        ]

    wait_until(lambda: len(clients()) == 2)
    assert clients() == ["127.0.0.1"] * 2
    assert not [seen for seen in upstream.requests if seen.path == "/api/tags"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("gw.example", 200),
        ("192.0.2.7:99", 200),
        ("evil.example", 200),
        ("a b", 400),
        ("gw/x", 400),
        ("", 400),
    ],
)
def test_hosts_pass_nginx_as_they_are_judged_by_the_gateway(
    nginx: Nginx, host: str, status: int
) -> None:
    head = f"GET /api/tags HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    assert int(raw(nginx.port, head.encode()).split()[1]) == status


@pytest.mark.parametrize(
    "place",
    [
        "/k/{0}/api/tags",
        "//k/{0}/api/tags",
        "/K/{0}/api/tags",
        "/k/{0}/nope?key={0}",
        "/api/tags?key={0}",
    ],
)
def test_a_token_in_an_address_is_in_no_log_of_nginx(nginx: Nginx, place: str) -> None:
    token = f"canary-{place.count('/')}{place.count('K')}{place.count('?')}-token"
    request(nginx.url, "GET", place.format(token))
    request(nginx.url, "GET", "/livez?last=1", headers={"User-Agent": token[::-1]})
    wait_until(lambda: token[::-1] in nginx.access_log.read_text(encoding="utf-8"))
    for path in nginx.directory.glob("*.log"):
        assert token not in path.read_text(encoding="utf-8", errors="replace"), path.name
