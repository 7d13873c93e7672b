"""The shipped nginx site in a real nginx, in front of a scripted upstream that
stands for the gateway."""

from __future__ import annotations

import json
import re
import secrets
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.settings import Settings
from tests.rig import http_client
from tests.rig.authority import Authority
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    EndChunks,
    Head,
    Json,
    NoReadBody,
    ReadBody,
    ScriptedServer,
    Send,
    WaitFor,
    WaitForPeerClose,
    Whole,
)
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import free_port
from tests.rig.nginx import SITE, Nginx, nginx_before
from tests.rig.tables import check_rows
from tests.rig.tiers import allowed

TOKEN = "sk-canary-1234567890"
#: How soon the gateway sees that a client has left.
NOTICED_S = allowed(1)
CHAT = {"model": "tiny", "messages": []}
STREAM_HEAD = Head(200, {"Content-Type": "application/x-ndjson"})


gateway = module_fixture(ScriptedServer)


shared_nginx = module_fixture(lambda gateway: nginx_before(gateway))


@pytest.fixture
def nginx(shared_nginx: Nginx, gateway: ScriptedServer) -> Nginx:
    """nginx in front of `gateway`, which has forgotten what earlier tests scripted and saw."""
    gateway.clear()
    return shared_nginx


#: nginx whose gateway is down.
lonely_nginx = module_fixture(
    lambda tmp_path_factory: Nginx(tmp_path_factory.mktemp("lonely"), f"127.0.0.1:{free_port()}")
)


def raw_status(nginx: Nginx, data: bytes) -> tuple[int, str, Any]:
    """Status, content type and JSON of the answer to these bytes."""
    head, _, body = http_client.raw(nginx.port, data).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    kind = next(
        line.split(": ", 1)[1] for line in lines if line.lower().startswith("content-type:")
    )
    return int(lines[0].split(" ")[1]), kind, json.loads(body)


# --- Passing on -----------------------------------------------------------------------------------


def test_shipped_site_is_accepted_without_a_warning(nginx: Nginx) -> None:
    assert "warn" not in nginx.check()


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", f"/k/{TOKEN}/api/chat"])
def test_every_piece_of_a_stream_arrives_before_the_next_is_sent(
    nginx: Nginx, gateway: ScriptedServer, path: str
) -> None:
    seen = [threading.Event() for _ in range(3)]
    pieces = [
        step
        for number, event in enumerate(seen)
        for step in (Chunk(b'{"n":%d}\n' % number), WaitFor(event, 5))
    ]
    gateway.script(path, [STREAM_HEAD, *pieces, EndChunks()])
    with http_client.open_stream(nginx.url, "POST", path, CHAT) as stream:
        for number, line in enumerate(stream.lines(timeout=3)):
            assert line.json() == {"n": number}
            seen[number].set()
    assert stream.complete


@pytest.mark.parametrize(
    "before_leaving",
    [[], [STREAM_HEAD], [STREAM_HEAD, Chunk(b'{"n":0}\n')]],
    ids=["before the head", "after the head", "between tokens"],
)
def test_client_that_leaves_is_gone_upstream_within_a_second(
    nginx: Nginx, gateway: ScriptedServer, before_leaving: list[Any]
) -> None:
    gateway.script("/api/chat", [*before_leaving, WaitForPeerClose()])
    stream = http_client.open_stream(
        nginx.url, "POST", "/api/chat", CHAT, wait_for_head=bool(before_leaving)
    )
    connection = gateway.wait_for_request().connection
    if len(before_leaving) > 1:
        assert next(stream.lines()).json() == {"n": 0}
    left_at = time.monotonic()
    stream.close()
    assert gateway.wait_peer_closed(connection) - left_at < NOTICED_S


def test_cut_of_the_gateway_is_a_cut_for_the_client(nginx: Nginx, gateway: ScriptedServer) -> None:
    gateway.script("/api/chat", [STREAM_HEAD, Chunk(b'{"n":0}\n'), Send(b"5\r\nab")])
    with http_client.open_stream(nginx.url, "POST", "/api/chat", CHAT) as stream:
        assert next(stream.lines()).json() == {"n": 0}
        gateway.refuse()
        stream.read_all()
        assert not stream.complete
    gateway.restart()


CLAIMS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Uri": "/evil",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
    "X-Forwarded-User": "admin",
    "SCRIPT_NAME": "/evil",
    "X_Forwarded_For": "203.0.113.9",
    "Upgrade": "websocket",
}


def test_claims_of_the_client_are_replaced_or_dropped(
    nginx: Nginx, gateway: ScriptedServer
) -> None:
    gateway.script("/api/tags", [Json({})])
    http_client.request(
        nginx.url, path="/api/tags", headers={**CLAIMS, "Host": "models.example:8443"}
    )
    seen = {name.lower(): value for name, value in gateway.wait_for_request().headers}
    assert seen == {
        "host": "models.example:8443",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
    }


TOKEN_HEADERS = {
    "Authorization": f"Bearer {TOKEN}",
    "x-api-key": TOKEN,
    "api-key": TOKEN,
    "anthropic-version": "1",
}


def test_token_headers_pass(nginx: Nginx, gateway: ScriptedServer) -> None:
    gateway.script("/api/tags", [Json({})])
    http_client.request(nginx.url, path="/api/tags", headers=TOKEN_HEADERS)
    request = gateway.wait_for_request()
    assert {name: request.header(name) for name in TOKEN_HEADERS} == TOKEN_HEADERS


def test_errors_of_the_gateway_pass_untouched(nginx: Nginx, gateway: ScriptedServer) -> None:
    def check(status: int) -> None:
        gateway.script("/v1/models", [Json({"from": "the gateway"}, status, {"Retry-After": "7"})])
        answer = http_client.request(nginx.url, path="/v1/models")
        assert (answer.status, answer.json(), answer.headers.get_all("Retry-After")) == (
            status,
            {"from": "the gateway"},
            ["7"],
        )

    check_rows([(status,) for status in (400, 401, 404, 413, 429, 500, 502, 503, 504)], check)


PATHS = [
    "/api/../v1/models",
    "//api/tags",
    "/api//tags",
    "/api/%2e%2e/v1/models",
    "/api%2ftags",
    "/api/tags%3fa=b",
    "/api/tags;x=1",
    "/api/tags/?a=%2F&b=..",
    "/API/Tags",
    "/api/tags%23x",
    "/api/tags%0d%0aX-Evil:1",
    "/api/blobs/../chat",
]


def test_path_reaches_the_gateway_as_it_was_written(nginx: Nginx, gateway: ScriptedServer) -> None:
    for path in PATHS:
        http_client.request(nginx.url, path=path)
    assert [seen.raw_path for seen in gateway.requests] == PATHS


@pytest.mark.parametrize("target", [b"/api/%00", b"/api/%zz", b"/../../etc/passwd", b"api/tags"])
def test_impossible_path_is_refused_in_json(
    nginx: Nginx, gateway: ScriptedServer, target: bytes
) -> None:
    status, kind, body = raw_status(
        nginx, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target
    )
    assert (status, kind) == (400, "application/json; charset=utf-8")
    assert body == {"error": "The request is not valid HTTP."}
    assert gateway.requests == []


def test_connections_to_the_gateway_are_kept(nginx: Nginx, gateway: ScriptedServer) -> None:
    gateway.script("/api/tags", [Json({})])
    for _ in range(5):
        http_client.request(nginx.url, path="/api/tags")
    assert len({request.connection for request in gateway.requests}) == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_call_is_never_sent_twice(nginx: Nginx, gateway: ScriptedServer, method: str) -> None:
    gateway.script("/api/tags", [Json({})])
    gateway.script("/api/chat", [Cut()])
    # Leaves a kept connection, on which nginx likes to try again.
    http_client.request(nginx.url, path="/api/tags")
    assert http_client.request(nginx.url, method, "/api/chat", CHAT).status == 502
    assert len([request for request in gateway.requests if request.path == "/api/chat"]) == 1


# --- Bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9 << 20, 64 << 20])
def test_large_body_passes_whole(nginx: Nginx, gateway: ScriptedServer, size: int) -> None:
    gateway.script("/api/chat", [Json({})])
    body = b"0123456789abcdef" * (size // 16)
    assert http_client.request(nginx.url, "POST", "/api/chat", body, timeout=30).status == 200
    assert gateway.wait_for_request().body == body


def test_slow_body_holds_no_connection_of_the_gateway(
    nginx: Nginx, gateway: ScriptedServer
) -> None:
    with socket.create_connection(("127.0.0.1", nginx.port)) as client:
        client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
        gateway.script("/api/tags", [Json({})])
        assert http_client.request(nginx.url, path="/api/tags").status == 200
        assert [request.path for request in gateway.requests] == ["/api/tags"]
        gateway.script("/api/chat", [Json({})])
        client.sendall(b"56789")
        assert gateway.wait_for_request(path="/api/chat").body == b"123456789"


@pytest.mark.parametrize("path", ["/api/blobs/sha256:00", f"/k/{TOKEN}/box/b/api/blobs/sha256:00"])
def test_upload_of_a_blob_is_passed_on_while_it_arrives(
    nginx: Nginx, gateway: ScriptedServer, path: str
) -> None:
    gateway.script(path, [NoReadBody(), ReadBody(), Whole(b"", 201)])
    piece = b"x" * (1 << 20)
    with http_client.open_stream(
        nginx.url, "POST", path, headers={"Content-Length": str(80 << 20)}, wait_for_head=False
    ) as stream:
        stream.sock.sendall(piece)
        upload = gateway.wait_for_request(path=path)
        assert not upload.complete
        for _ in range(79):
            stream.sock.sendall(piece)
        assert stream.status == 201
    assert len(upload.body) == 80 << 20


def test_chunked_upload_of_a_blob_is_passed_on(nginx: Nginx, gateway: ScriptedServer) -> None:
    gateway.script("/api/blobs/sha256:00", [Whole(b"", 201)])
    headers = {"Transfer-Encoding": "chunked"}
    body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    assert (
        http_client.request(nginx.url, "POST", "/api/blobs/sha256:00", body, headers).status == 201
    )
    assert gateway.wait_for_request().body == b"abcdefg"


# --- Errors made by nginx -------------------------------------------------------------------------

NATIVE = ["/api/chat", "/", f"/k/{TOKEN}/api/chat"]
OPENAI = ["/v1/chat/completions", "/v1", "/v1?a=b", f"/k/{TOKEN}/v1/models", "/openai/v1/models"]
ANTHROPIC = [
    "/v1/messages",
    "/v1/messages?beta=true",
    "/anthropic/v1/messages",
    f"/k/{TOKEN}/v1/messages",
]


@pytest.mark.parametrize("path", NATIVE)
def test_missing_gateway_is_a_native_error(lonely_nginx: Nginx, path: str) -> None:
    answer = http_client.request(lonely_nginx.url, "POST", path, CHAT)
    assert answer.status == 502
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith("The gateway is not running")


@pytest.mark.parametrize("path", OPENAI)
def test_missing_gateway_is_an_openai_error(lonely_nginx: Nginx, path: str) -> None:
    answer = http_client.request(lonely_nginx.url, "POST", path, CHAT)
    error = answer.json()["error"]
    assert answer.status == 502
    assert error.pop("message").startswith("The gateway is not running")
    assert error == {"type": "api_error", "param": None, "code": "gateway_unreachable"}


@pytest.mark.parametrize("path", ANTHROPIC)
def test_missing_gateway_is_an_anthropic_error(lonely_nginx: Nginx, path: str) -> None:
    answer = http_client.request(lonely_nginx.url, "POST", path, CHAT)
    body = answer.json()
    assert answer.status == 502
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    assert len(body["request_id"]) == 32


def test_error_of_nginx_is_not_cached_and_says_when_to_come_back(lonely_nginx: Nginx) -> None:
    headers = http_client.request(lonely_nginx.url, path="/api/tags").headers
    assert headers.get("Content-Type") == "application/json; charset=utf-8"
    assert headers.get("Cache-Control") == "no-store"
    assert headers.get("Retry-After") == "5"


TOO_LARGE = "The request body is too large."


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/chat", {"error": TOO_LARGE}),
        (
            "/v1/chat/completions",
            {
                "error": {
                    "message": TOO_LARGE,
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "body_too_large",
                }
            },
        ),
    ],
)
@pytest.mark.parametrize(
    "framing", [f"Content-Length: {(64 << 20) + 1}", "Transfer-Encoding: chunked"]
)
def test_body_over_the_limit_is_413_in_json(
    nginx: Nginx, gateway: ScriptedServer, path: str, expected: dict[str, Any], framing: str
) -> None:
    first_chunk = b"4000001\r\n" if "chunked" in framing else b""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n".encode()
    status, _, body = raw_status(nginx, head + first_chunk + b"x")
    assert (status, body) == (413, expected)
    assert gateway.requests == []


def test_nginx_waits_longer_than_the_longest_wait_and_answer() -> None:
    (shipped_s,) = re.findall(r"proxy_read_timeout (\d+)s;", SITE.read_text(encoding="utf-8"))
    settings = Settings()
    assert int(shipped_s) > settings.queue.max_wait_s + settings.timeouts.total_s


def test_slow_gateway_is_504_in_json(gateway: ScriptedServer, tmp_path: Path) -> None:
    gateway.script("/v1/embeddings", [WaitForPeerClose()])
    with Nginx(
        tmp_path, f"127.0.0.1:{gateway.port}", {"proxy_read_timeout 4260s": "proxy_read_timeout 1s"}
    ) as nginx:
        answer = http_client.request(nginx.url, "POST", "/v1/embeddings", {})
    assert answer.status == 504
    assert answer.json()["error"]["type"] == "timeout_error"


UNREADABLE = [
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET /api/tags HTTP/1.1\r\nHost: x\r\nX-Big: " + b"b" * 9000 + b"\r\n\r\n", 431),
    (
        b"GET /api/tags HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"t" * 65536 + b"\r\n\r\n",
        431,
    ),
    (b"GET /api/tags HTTP/1.1\r\n\r\n", 400),
    (b"GET /api/tags HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /api/tags HTTP/1.1\r\nHost: a b/c\r\n\r\n", 400),
    (
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        400,
    ),
    (b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"TRACE /api/tags HTTP/1.1\r\nHost: x\r\n\r\n", 405),
]


def test_request_that_nginx_refuses_gets_json_and_goes_no_further(
    nginx: Nginx, gateway: ScriptedServer
) -> None:
    def check(data: bytes, status: int) -> None:
        seen, kind, body = raw_status(nginx, data)
        assert (seen, kind) == (status, "application/json; charset=utf-8")
        assert list(body) == ["error"]
        assert gateway.requests == []

    check_rows(UNREADABLE, check)


def test_internal_error_page_is_not_an_address(nginx: Nginx, gateway: ScriptedServer) -> None:
    assert http_client.request(nginx.url, path="/.ollama-proxy-error").status == 404
    assert gateway.requests == []


# --- Logs -----------------------------------------------------------------------------------------

TOKEN_IN_URL = [
    (f"/k/{TOKEN}/v1/models", "/k/***/v1/models"),
    (f"/k/{TOKEN}", "/k/***"),
    (f"/k/{TOKEN}/api/blobs/sha256:00", "/k/***/api/blobs/sha256:00"),
    (f"/k/{TOKEN}/box/box1/api/blobs/sha256:00", "/k/***/box/***/api/blobs/sha256:00"),
    (f"/box/{TOKEN}/v1/models/{TOKEN}", "/box/***/v1/models/***"),
    (f"/box/box1/k/{TOKEN}/api/tags", "(unknown)"),
    (f"/%6b/{TOKEN}/api/tags", "/k/***/api/tags"),
    (f"/K%2f{TOKEN}%2fapi/tags", "/K/***/api/tags"),
    (f"//k//{TOKEN}/api/tags", "//k//***/api/tags"),
    (f"/x/../k/{TOKEN}/api/tags", "/k/***/api/tags"),
    (f"/api/tags?api_key={TOKEN}", "/api/tags"),
    (f"/foo={TOKEN}", "(unknown)"),
    (f"/{TOKEN}", "(unknown)"),
    (f"/api/tags/{TOKEN}", "(unknown)"),
    (f"/api/tags{TOKEN}", "(unknown)"),
    (f"/api/{TOKEN}/tags", "(unknown)"),
    (f"/v1/{TOKEN}/chat/completions", "(unknown)"),
    (f"/v1/models/{TOKEN}", "/v1/models/***"),
    (f"/v1/models/x%2f{TOKEN}", "/v1/models/***"),
    (f"/k/{TOKEN}/v1/models/{TOKEN}", "/k/***/v1/models/***"),
    (f"/k/{TOKEN}/foo={TOKEN}", "(unknown)"),
    (f"/api/blobs/{TOKEN}", "/api/blobs/***"),
    (f"/api/blobs/sha256:{TOKEN}", "/api/blobs/***"),
    ("/", "/"),
    ("/v1/chat/completions", "/v1/chat/completions"),
    ("/anthropic/v1/messages", "/anthropic/v1/messages"),
    ("/readyz", "/readyz"),
    ("/admin", "/admin"),
    (f"/admin/keys?next={TOKEN}", "/admin/keys"),
    (f"/admin/{TOKEN}", "(unknown)"),
    (f"/admin/keys/{TOKEN}", "/admin/keys/***"),
    (f"/admin/api/tokens/{TOKEN}", "/admin/api/***"),
    (f"/k/{TOKEN}/admin/api/status", "/k/***/admin/api/***"),
]


def logged_paths(nginx: Nginx, agent: str = "") -> list[str]:
    """The paths in the access log; with `agent` only those of requests that it has sent."""
    lines = map(json.loads, nginx.access_log.read_text(encoding="utf-8").splitlines())
    return [line["path"] for line in lines if agent in line["agent"]]


def test_token_in_the_url_is_in_no_log_even_when_the_gateway_is_down(lonely_nginx: Nginx) -> None:
    def check(path: str, logged: str) -> None:
        agent = f"test-{secrets.token_hex(4)}"  # lines of other requests may still come
        headers = {
            "Referer": f"http://x/k/{TOKEN}/",
            "Authorization": f"Bearer {TOKEN}",
            "User-Agent": agent,
        }
        assert http_client.request(lonely_nginx.url, path=path, headers=headers).status == 502
        wait_until(
            lambda: logged_paths(lonely_nginx, agent) == [logged],
            10,
            lambda: str(logged_paths(lonely_nginx)),
        )

    check_rows(TOKEN_IN_URL, check)
    logs = "".join(
        file.read_text(encoding="utf-8") for file in lonely_nginx.directory.glob("*.log")
    )
    assert TOKEN not in logs


@pytest.mark.parametrize("header", ["User-Agent", "X-Request-Id", "Referer", "X-Forwarded-For"])
def test_token_in_a_header_is_in_no_log_of_nginx(lonely_nginx: Nginx, header: str) -> None:
    before = len(logged_paths(lonely_nginx))
    http_client.request(lonely_nginx.url, path="/api/ps", headers={header: f"x-{TOKEN}"})
    wait_until(lambda: len(logged_paths(lonely_nginx)) > before)
    logs = "".join(
        file.read_text(encoding="utf-8") for file in lonely_nginx.directory.glob("*.log")
    )
    assert TOKEN not in logs


def test_token_as_a_method_is_in_no_log_of_nginx(lonely_nginx: Nginx) -> None:
    before = len(logged_paths(lonely_nginx))
    raw_status(
        lonely_nginx, b"OP_SECRET-METHOD /api/ps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    wait_until(lambda: len(logged_paths(lonely_nginx)) > before)
    assert "OP_SECRET" not in lonely_nginx.access_log.read_text(encoding="utf-8")


def test_access_log_has_what_an_operator_asks_for(nginx: Nginx, gateway: ScriptedServer) -> None:
    gateway.script("/api/version", [Json({}, headers={"X-Request-Id": "r-1"})])
    http_client.request(nginx.url, path="/api/version", headers={"User-Agent": 'a "quoted" name'})
    wait_until(lambda: "/api/version" in logged_paths(nginx), 5)
    line = json.loads(nginx.access_log.read_text(encoding="utf-8").splitlines()[-1])
    assert (line["client"], line["method"], line["status"]) == ("127.0.0.1", "GET", 200)
    assert (line["gateway_status"], line["request_id"], line["agent"]) == (
        "200",
        "r-1",
        'a "quoted" name',
    )


# --- The variants that the file describes ---------------------------------------------------------


def test_https_by_the_commented_lines_tells_the_gateway_so(
    gateway: ScriptedServer, tmp_path: Path
) -> None:
    gateway.clear()
    gateway.script("/api/tags", [Json({})])
    authority = Authority(tmp_path)
    authority.server("IP:127.0.0.1")
    port = free_port()
    changes = {
        "# listen 443 ssl default_server;": f"listen 127.0.0.1:{port} ssl default_server;",
        "# ssl_certificate     /etc/ssl/ollama-proxy/fullchain.pem;": f"ssl_certificate {tmp_path / 'server.crt'};",
        "# ssl_certificate_key /etc/ssl/ollama-proxy/privkey.pem;": f"ssl_certificate_key {tmp_path / 'server.key'};",
        "# ssl_protocols": "ssl_protocols",
    }
    trusted = ssl.create_default_context(cafile=authority.certificate)
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}", changes):
        answer = http_client.request(
            f"https://127.0.0.1:{port}", path="/api/tags", ssl_context=trusted
        )
    assert answer.status == 200
    assert gateway.wait_for_request().header("X-Forwarded-Proto") == "https"


def uncommented(block_start: str) -> dict[str, str]:
    """The replacement that takes the comment signs off one of the blocks at the end of the file."""
    text = Nginx.site_text()
    start = text.index("# server {", text.index(block_start))
    end = text.index("\n# }", start) + len("\n# }")
    block = text[start:end]
    return {
        block: "\n".join(line.removeprefix("# ").removeprefix("#") for line in block.splitlines())
    }


def admin_block(networks: str) -> dict[str, str]:
    """The replacement that takes the comment signs off the block for admin
    pages, with these networks."""
    text = Nginx.site_text()
    start = text.index("    # location ~* ")
    end = text.index("    # }\n", start) + len("    # }\n")
    block = text[start:end]
    lines = "".join(line.replace("# ", "", 1) for line in block.splitlines(keepends=True))
    return {
        block: lines.replace("allow 10.0.0.0/8;", networks).replace("allow 192.168.0.0/16;", "")
    }


ADMIN_PATHS = [
    "/admin",
    "/admin/",
    "/admin/keys",
    "/admin/api/status",
    "/admin/events",
    "/admin/call/api/tags",
    f"/k/{TOKEN}/admin/api/tokens",
    f"/k/{TOKEN}/box/b/admin/api/tokens",
    "/box/b/admin/keys",
    "/%61dmin/keys",
    "/Admin",
    "//admin/keys",
    "/x/../admin/keys",
    "/./admin",
    f"/k//{TOKEN}/admin/api/tokens",
    f"/k/{TOKEN}%2fadmin/api/tokens",
    f"/k/{TOKEN}//admin/api/tokens",
    f"//k/{TOKEN}/admin/api/tokens",
]


def test_admin_pages_are_for_the_networks_of_the_commented_block(
    gateway: ScriptedServer, tmp_path: Path
) -> None:
    gateway.clear()
    for path in ("/api/tags", "/administrator"):
        gateway.script(path, [Json({})])
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}", admin_block("allow 10.0.0.0/8;")) as nginx:
        assert "warn" not in nginx.check()
        for path in ADMIN_PATHS:
            answer = http_client.request(nginx.url, path=path)
            assert (answer.status, answer.json()["error"]) == (
                403,
                "This address may not be used from your network.",
            ), path
        assert gateway.requests == []
        for path in ("/api/tags", "/administrator"):
            assert http_client.request(nginx.url, path=path).status == 200
    logs = "".join(file.read_text(encoding="utf-8") for file in tmp_path.glob("*.log"))
    assert TOKEN not in logs


def test_admin_pages_of_an_allowed_network_are_passed_on_piece_by_piece(
    gateway: ScriptedServer, tmp_path: Path
) -> None:
    gateway.clear()
    seen = [threading.Event() for _ in range(3)]
    pieces = [
        step
        for number, event in enumerate(seen)
        for step in (Chunk(b"data: %d\n\n" % number), WaitFor(event, 5))
    ]
    gateway.script(
        "/admin/events", [Head(200, {"Content-Type": "text/event-stream"}), *pieces, EndChunks()]
    )
    with Nginx(tmp_path, f"127.0.0.1:{gateway.port}", admin_block("allow 127.0.0.0/8;")) as nginx:
        with http_client.open_stream(
            nginx.url, "GET", "/admin/events", headers={"Cookie": "ollama-proxy=x"}
        ) as stream:
            for number, event in enumerate(seen):
                assert stream.read_some(3) == b"data: %d\n\n" % number
                event.set()
    assert gateway.wait_for_request().header("Cookie") == "ollama-proxy=x"


def test_unknown_host_gets_no_answer_with_the_commented_block(
    gateway: ScriptedServer, tmp_path: Path
) -> None:
    gateway.clear()
    gateway.script("/api/tags", [Json({})])
    changes = {
        "    listen 80 default_server;\n    # listen [::]": "    listen 80;\n    # listen [::]",
        "    server_name _;\n\n    # HTTPS": "    server_name models.example;\n\n    # HTTPS",
    }
    only_known = Nginx(
        tmp_path, f"127.0.0.1:{gateway.port}", {**uncommented("# Only known names"), **changes}
    )
    with only_known:
        known = http_client.request(
            only_known.url, path="/api/tags", headers={"Host": "models.example"}
        )
        assert known.status == 200
        with pytest.raises(ConnectionError):
            http_client.request(only_known.url, path="/api/tags", headers={"Host": "other.example"})


def test_gateway_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as listener, Nginx(tmp_path, f"unix:{path}") as nginx:
        listener.bind(str(path))
        listener.listen()
        stream = http_client.open_stream(nginx.url, path="/api/tags", wait_for_head=False)
        connection, _ = listener.accept()
        with stream, connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            assert stream.read_all() == b"{}"
