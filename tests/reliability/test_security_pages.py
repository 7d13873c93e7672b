"""What web pages of other sites, outsiders and caches get: no answer with rights of its
reader, no inside, no copy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.app.test_cors import allowances
from tests.reliability.rig import PROBE_TOKEN, TOKEN, Rig, Row, nginx_decides
from tests.reliability.sweep import page_routes
from tests.rig import fault_upstream as do
from tests.rig.calls import DIGEST, EMBEDDINGS, FACES
from tests.rig.http_client import Answer, bearer, raw
from tests.rig.pages import PageClient

PAGE, EVIL = "https://chat.example", "https://evil.example"
READER = "sk-may-only-read"
LIMIT = 1 << 20


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A gateway for one page, by the names of the loopback address alone."""
    tokens = [
        {"name": "team", "token": TOKEN},
        {"name": "reader", "token": READER, "scopes": ["read"]},
    ]
    config = {
        "auth": {"generate_tokens": tokens, "max_failed_logins": 0},
        "cors": {"origins": [PAGE, "https://*.intern.example"]},
        "server": {"allowed_hosts": ["127.0.0.1"], "max_body": LIMIT},
        "metrics": {"allow": []},
    }
    with Rig(config=config, nginx={"client_max_body_size 64m;": "client_max_body_size 1m;"}) as rig:
        yield rig


# S18

API = [
    ("POST", face.path, {**face.body, "stream": False})
    for face in (*FACES.values(), *EMBEDDINGS.values())
]
API += [
    ("GET", "/api/tags", None),
    ("GET", "/v1/models", None),
    ("DELETE", "/api/delete", {"model": "m"}),
]
API += [
    ("GET", "/api/version", None),
    ("HEAD", f"/api/blobs/{DIGEST}", None),
    ("GET", "/v1/models/m", None),
]
API += [
    ("POST", path, FACES["anthropic messages"].body)
    for path in ("/anthropic/v1/messages", "/v1/messages/count_tokens")
]
PAGES = [route.path for route in page_routes() if route.method == "GET" and "<" not in route.path]
OWN = ("/", "/health", "/livez", "/readyz", "/nope", "/metrics")
#: Pages that are not the one, however much their names look like it.
STRANGERS = (
    EVIL,
    "null",
    "https://chat.example.evil",
    "https://xchat.example",
    "http://chat.example",
    "file://",
)
STRANGERS += (
    "https://chat.example:8443",
    "https://intern.example",
    "https://x.intern.example.evil",
    "HTTPS://x/y",
)


def preflight(row: Row, method: str, path: str, origin: str) -> Answer:
    """What a browser asks before it lets a page call, with what it adds for addresses
    of a private network."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-api-key",
        "Access-Control-Request-Private-Network": "true",
        "Access-Control-Request-Local-Network": "true",
    }
    return row.ask("OPTIONS", path, headers=headers, token=None)


def check_pages_elsewhere(row: Row) -> None:
    """No page of another site may read an admin page, also not one that may call the API."""
    operator = PageClient(row.url)
    assert operator.sign_in(TOKEN).status == 303
    for path in PAGES:
        for method in ("GET", "OPTIONS"):
            for origin in (PAGE, EVIL):
                answer = operator.send(method, path, Origin=origin)
                assert allowances(answer) == {}, (path, origin)


@nginx_decides
def test_s18_pages_of_other_sites(row: Row) -> None:
    """CORS for the configured page on API routes only; never with credentials or into a
    private network; another name for this address, as DNS rebinding has one, is refused before
    anybody asks for a token."""
    for method, path, body in API:
        said = preflight(row, method, path, PAGE)
        assert said.status in (200, 204) and allowances(said)["access-control-allow-origin"] == PAGE
        for origin in (PAGE, *STRANGERS):
            told = [
                preflight(row, method, path, origin),
                row.ask(method, path, body, {"Origin": origin}, dialect="any"),
            ]
            for allowed in map(allowances, told):
                assert (allowed.get("access-control-allow-origin") == PAGE) == (origin == PAGE), (
                    origin,
                    path,
                )
                assert allowed.get("access-control-allow-origin") in (None, PAGE)
                assert "access-control-allow-credentials" not in allowed
                assert allowed.get("access-control-allow-private-network", "false") == "false"
                assert allowed.get("access-control-allow-local-network", "false") == "false"
    for path in OWN:
        for method in ("GET", "OPTIONS"):
            assert allowances(row.ask(method, path, headers={"Origin": PAGE})) == {}
    check_pages_elsewhere(row)
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost",
        "[::1]",
        "",
    ):
        for token in (TOKEN, None):
            for path in ("/api/tags", "/v1/models", "/"):
                asked = {"Host": host, "Origin": f"http://{host}"}
                assert row.ask("GET", path, headers=asked, token=token).status == 400, (host, path)
    row.allow(503)  # pages of the records, which are off here
    row.allow(502)  # what several servers were asked to delete, and not all could


# S23

INSIDE = (
    "details",
    "upstreams",
    "providers",
    "models",
    "pid",
    "greenlets",
    "configuration_problem",
)
SECRET_WORDS = re.compile(
    rf"{TOKEN}|{PROBE_TOKEN}|{READER}|box1|steady|generate_tokens|sha256|config\.yaml|127\.0\.0\.1|/tmp/|/home/",
    re.I,
)
OPEN = {
    "/": {"status", "ollama", "api", "service", "version", "uptime", "uptime_s"},
    "/health": {"status", "ollama", "api", "service", "version", "uptime", "uptime_s"},
    "/livez": {"status"},
    "/readyz": {"status"},
}
#: Where others have metrics.
ELSEWHERE = (
    "/metrics/",
    "/api/metrics",
    "/v1/metrics",
    "/stats",
    "/debug/vars",
    "/admin/api/metrics",
    "/status",
)


@nginx_decides
def test_s23_health_and_metrics_from_outside(row: Row) -> None:
    """Health says to strangers whether the gateway is well, and nothing of what is behind
    it; metrics say nothing."""
    as_json = {"Accept": "application/json"}
    for path, keys in OPEN.items():
        for headers in (
            {},
            bearer("sk-wrong"),
            {"x-api-key": "sk-wrong"},
            {"X-Forwarded-For": "127.0.0.1"},
        ):
            answer = row.ask("GET", path, headers=as_json | headers, token=None)
            assert (answer.status, answer.json().keys()) == (200, keys), path
            assert not SECRET_WORDS.search(answer.text + str(answer.headers)), answer.text
            assert not set(INSIDE) & answer.json().keys()
    assert row.ask("GET", "/", token=None).body == b"Ollama is running"
    assert "details" not in row.ask("GET", "/readyz", token=READER).json()
    assert "reason" not in json.dumps(row.ask("GET", "/health", token=READER).json())
    for headers in (
        {},
        bearer("sk-wrong"),
        bearer(READER),
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
    ):
        answer = row.ask("GET", "/metrics", headers=headers, token=None)
        assert answer.status == 403 and not SECRET_WORDS.search(
            answer.text + str(answer.headers)
        ), answer.text
    for path in ELSEWHERE:
        assert row.ask("GET", path, token=None).status == 401
        assert row.ask("GET", path).status == 404


# S25


def bad_requests(row: Row) -> dict[str, tuple[str, str, Any, dict[str, str], str | None]]:
    """A request for every status that the gateway or nginx says no with: method, path,
    body, headers, token."""
    wanted: dict[str, tuple[str, str, Any, dict[str, str], str | None]] = {}
    for name, face in (FACES | EMBEDDINGS).items():
        path, body = face.path, face.body
        wanted |= {
            f"401 {name}": ("POST", path, body, {}, None),
            f"403 {name}": ("POST", path, body, {}, READER),
            f"400 {name}": ("POST", path, b"{", {}, TOKEN),
            f"404 {name}": ("POST", path, {**body, "model": "nobody-has-it"}, {}, TOKEN),
            f"405 {name}": ("GET", path, None, {}, TOKEN),
            f"413 {name}": ("POST", path, b" " * (LIMIT + 1), {}, TOKEN),
            f"415 {name}": (
                "POST",
                path,
                b"--x--",
                {"Content-Type": "multipart/form-data; boundary=x"},
                TOKEN,
            ),
        }
    wanted["404"] = ("GET", "/nope", None, {}, TOKEN)
    wanted["400 host"] = ("GET", "/api/tags", None, {"Host": "elsewhere.example"}, TOKEN)
    wanted["403 account"] = ("POST", "/api/me", {}, {}, TOKEN)
    return wanted


READS = [
    "/",
    "/health",
    "/livez",
    "/readyz",
    "/api/version",
    "/api/status",
    "/api/tags",
    "/api/ps",
    "/v1/models",
]
READS += ["/v1/models/m", "/v1/responses/resp_1"]
RAW = {
    "414": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "431": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n",
    "400": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
}


def check_admin_pages(row: Row, check: Callable[[str, Answer], None]) -> None:
    """The same of admin pages; only static files are kept, under the address of their version."""
    operator = PageClient(row.url)
    assert operator.sign_in(TOKEN).status == 303
    for client in (operator, PageClient(row.url)):
        for path in (
            *PAGES,
            "/admin/nothing",
            "/admin/static/style.css",
            "/admin/static/style.css?v=old",
        ):
            check(f"{path} {bool(client.cookie)}", client.get(path))
        check("POST of a page", client.post("/admin/keys/create"))
    check("signing in", operator.post("/admin/sign-in", {"token": "wrong"}))
    address = re.search(
        r'href="(/admin/static/style.css\?v=[0-9a-f]+)"', operator.get("/admin/keys").text
    )
    assert address is not None
    assert operator.get(address[1]).headers.get_all("cache-control") == [
        "public, max-age=31536000, immutable"
    ]


@nginx_decides
def test_s25_no_shared_cache_keeps_an_answer(row: Row) -> None:
    """`no-store` on every route with every status, also on what nginx or gunicorn says by
    itself, and on streams."""
    row.allow(500, 502, 503, 504)
    seen: dict[str, int] = {}

    def check(name: str, answer: Answer) -> None:
        seen[name] = answer.status
        assert answer.headers.get_all("cache-control") == ["no-store"], (name, answer.headers)

    for path in READS:
        for method in ("GET", "HEAD", "OPTIONS"):
            check(f"{method} {path}", row.ask(method, path))
    for name, (method, path, body, headers, token) in bad_requests(row).items():
        check(name, row.ask(method, path, body, headers, token=token))
        assert str(seen[name]) == name[:3]
    for face in FACES.values():
        for stream in (True, False):
            check(
                f"{face.path} {stream}", row.ask("POST", face.path, {**face.body, "stream": stream})
            )
    cacheable = {
        "Cache-Control": "public, max-age=600",
        "Expires": "Fri, 01 Jan 2100 00:00:00 GMT",
        "ETag": '"x"',
    }
    for status in (200, 404, 429, 500, 502, 503):
        row.upstream.script(
            "/api/chat",
            [do.Json({"done": True} if status == 200 else {"error": "no"}, status, cacheable)],
        )
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
            check(
                f"{status} of the upstream, {path}",
                row.ask("POST", path, FACES["anthropic messages"].body),
            )
    check_admin_pages(row, check)
    for name, data in RAW.items():
        said = raw(row.port, data).decode()
        assert (
            said.startswith(f"HTTP/1.1 {name}")
            and "\r\ncache-control: no-store\r\n" in said.lower()
        ), said
    check("HEAD of a file", row.ask("HEAD", f"/api/blobs/{DIGEST}", dialect="any"))
    row.measured("answers", len(seen) + len(RAW), "kinds")
