"""The admin pages: who may use them, from where, and what guessing and stolen cookies get."""

from __future__ import annotations

import itertools
import json
import ssl
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from ollama_proxy.admin import PAGE_SCOPES
from ollama_proxy.policy import ADMIN, PUBLIC
from tests.reliability.rig import TOKEN, Rig, Row
from tests.reliability.sweep import BODIES, MODEL, page_routes, protected_routes
from tests.rig.authority import Authority
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway, free_port
from tests.rig.http_client import bearer, request
from tests.rig.nginx import Nginx
from tests.rig.pages import PageClient

OPERATOR, PASSWORD = "sk-of-an-operator", "correct horse battery staple"
MAX_FAILED_LOGINS = 5


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A team's token, and an operator's."""
    auth = {
        "generate_tokens": [
            {
                "name": "team",
                "token": TOKEN,
                "scopes": ["read", "generate"],
                "users": {"header": "X-User"},
            }
        ],
        "admin_tokens": [{"name": "operator", "token": OPERATOR}],
    }
    hashed = PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD)
    config = {"auth": auth, "admin": {"password_hash": hashed}}
    with Rig(config=config, workers=2, records=True) as rig:
        yield rig


def signed_in(row: Row, token: str = OPERATOR) -> PageClient:
    """A browser with a session."""
    client = PageClient(row.url)
    assert client.sign_in(token).status == 303
    return client


def state(row: Row) -> dict[str, Any]:
    """All that can be changed, without what changes by itself."""
    found = {}
    for name in ("tokens", "models", "upstreams", "settings"):
        rows = row.ask("GET", f"/admin/api/{name}", token=OPERATOR).json()[name]
        found[name] = [
            {key: value for key, value in each.items() if key not in ("last_used", "health")}
            for each in rows
        ]
    return found


# S5


def test_s5_rights_of_tokens_and_sessions(row: Row) -> None:
    """Role by route: pages take sessions and no tokens, the API takes tokens and no cookies, and
    members have no page of operators."""
    operator, member = signed_in(row), signed_in(row, TOKEN)
    nobody = PageClient(row.url)
    wrong: list[Any] = []
    routes = [
        route
        for route in page_routes()
        if PAGE_SCOPES[route.endpoint] != PUBLIC and route.method != "HEAD"
    ]
    routes = [route for route in routes if "sign-out" not in route.path]
    for route in routes:
        body = b"name=x" if route.method == "POST" else None
        headers = {"Origin": row.url, "Accept": "text/html"}
        with_token = {**headers, **bearer(OPERATOR)}
        is_for_operators = PAGE_SCOPES[route.endpoint] == ADMIN
        statuses = {
            "nobody": (nobody.send(route.method, route.path, body, **headers).status, (302,)),
            "token of an operator": (
                nobody.send(route.method, route.path, body, **with_token).status,
                (302,),
            ),
            "member": (
                member.send(route.method, route.path, body, **headers).status,
                (403,) if is_for_operators or route.method == "POST" else (200, 303, 400, 404),
            ),
        }
        wrong += [
            (route, role, status)
            for role, (status, right) in statuses.items()
            if status not in right
        ]
    assert wrong == []
    for route in protected_routes():
        if not route.path.startswith("/admin/") and route.method != "HEAD":
            answer = operator.send(
                route.method,
                route.path,
                BODIES.get(route.path, b"") if route.method == "POST" else None,
            )
            wrong += [(route, answer.status)] if answer.status != 401 else []
    assert wrong == []
    calls = [
        ("GET", "/api/tags", None, (200, 200)),
        ("DELETE", "/api/delete", {"model": "m"}, (502, 403)),
    ]
    row.allow(502)
    for method, path, body, (of_operator, of_member) in calls:
        for client, right in ((operator, of_operator), (member, of_member)):
            headers = {"X-CSRF-Token": client.csrf, "Origin": row.url}
            status = client.send(method, f"/admin/call{path}", body, **headers).status
            assert (status == 403) == (right == 403), (method, path, status)
            assert client.send(method, f"/admin/call{path}", body, Origin=row.url).status == 403
    assert nobody.send("GET", "/admin/call/api/tags", **bearer(OPERATOR)).status == 401
    assert member.get("/admin/api/tokens").status == 403
    assert member.get("/admin/api/me").json()["name"] == "team"
    row.measured("pages", len(routes), "routes")


# S6

#: For every object: its address, a valid body, and fields that nobody may set.
OBJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tokens": ("/admin/api/tokens", {"name": "mine", "scopes": ["read"]}),
    "models": ("/admin/api/models/mine", {"target": "m"}),
    "upstreams": (
        "/admin/api/upstreams",
        {"name": "mine", "kind": "ollama", "base_url": "http://127.0.0.1:9"},
    ),
}
FORBIDDEN = (
    "role",
    "admin",
    "digest",
    "sha256",
    "token",
    "prefix",
    "created_by",
    "created_at",
    "last_used",
    "source",
    "where",
    "__class__",
    "plain_in_file",
)


def test_s6_fields_that_nobody_may_set(row: Row) -> None:
    """Members change nothing, by page or API, whatever they send; operators can't set
    fields that do not exist."""
    before, member = state(row), signed_in(row, TOKEN)
    for name, (path, body) in OBJECTS.items():
        method = "PUT" if name == "models" else "POST"
        for extra in ({}, {"scopes": ["admin"]}, {"role": "admin"}):
            assert row.ask(method, path, {**body, **extra}, dialect="any").status == 403
            sent = {"X-CSRF-Token": member.csrf, "Origin": row.url}
            assert member.send(method, path, {**body, **extra}, **sent).status == 403
        for field, value in product(FORBIDDEN, ("x", True, None, {"a": 1})):
            if (name, field) in (("upstreams", "token"),):
                continue
            answer = row.ask(method, path, {**body, field: value}, token=OPERATOR, dialect="any")
            assert answer.status == 400, (name, field, value, answer.text)
    for name in ("team", "operator"):
        assert (
            row.ask(
                "PATCH", f"/admin/api/tokens/{name}", {"scopes": ["admin"]}, dialect="any"
            ).status
            == 403
        )
        assert row.ask("DELETE", f"/admin/api/tokens/{name}", dialect="any").status == 403
    for action in ("create", "change", "enable", "rotate", "revoke"):
        fields = {"name": "team", "confirm": "team", "scopes": "admin"}
        assert member.post(f"/admin/keys/{action}", fields).status == 403
    assert state(row) == before
    row.measured("fields", len(FORBIDDEN) * len(OBJECTS), "tried")


# S8

FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},
    {},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-site"},
    {"Referer": "https://evil.example/"},
)
TYPES = (
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/json",
)


def test_s8_changes_of_another_site(row: Row) -> None:
    """Whatever a page elsewhere can send with the operator's cookie, and even with a stolen
    token of a form, is 403."""
    client, before = signed_in(row), state(row)
    posts = [route.path for route in page_routes() if route.method == "POST"]
    form = (
        f"csrf_token={client.csrf}&name=evil&confirm=evil&scopes=admin&token={OPERATOR}&user=admin"
    )
    wrong = []
    bodies = (form, form.replace(client.csrf, ""), json.dumps({"name": "evil"}))
    # Every form with each sign of another site; of the ways of sending it, each from one site.
    sent = [
        *product(posts, FOREIGN, TYPES[:1], bodies[:1]),
        *product(posts, FOREIGN[:1], TYPES, bodies),
        *product(posts[:2], FOREIGN, TYPES, bodies),
    ]
    for path, origin, kind, body in sent:
        answer = client.send("POST", path, body, **{"Content-Type": kind}, **origin)
        wrong += [(path, origin, kind, answer.status)] if answer.status != 403 else []
        wrong += [(path, "cookie")] if answer.headers.get("Set-Cookie") else []
    body = json.dumps({"name": "evil", "scopes": ["admin"]})
    for path, origin, kind in product(
        ("/admin/api/tokens", "/admin/call/admin/api/tokens"), FOREIGN, TYPES
    ):
        for token in (client.csrf, ""):
            headers = {"Content-Type": kind, "X-CSRF-Token": token, **origin}
            answer = client.send("POST", path, body, **headers)
            wrong += [(path, origin, kind, answer.status)] if answer.status != 403 else []
    assert wrong == []
    own = {"Origin": row.url, "Content-Type": TYPES[0]}
    for token in ("", "x", signed_in(row, TOKEN).csrf):
        for path in (path for path in posts if path != "/admin/sign-in"):
            assert (
                client.send("POST", path, f"csrf_token={token}&name=evil", **own).status == 403
            ), path
    assert state(row) == before
    assert client.get("/admin/keys").status == 200
    row.measured("forms", len(sent), "refused")


# S9

HOSTILE = '"><img src=x data-canary onerror=alert(1)><script data-canary>alert(1)</script>'


class ElementReader(HTMLParser):
    """Collects what a page must not contain: elements out of names, scripts and
    styles in the page itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        found = dict(attrs)
        is_data = (found.get("type") or "").endswith("json")
        is_inline = tag == "style" or (tag == "script" and "src" not in found and not is_data)
        handlers = [
            name for name in found if name.startswith("on") or name in ("style", "data-canary")
        ]
        leads_to_script = (found.get("href") or "").lower().startswith(("javascript:", "data:"))
        if is_inline or handlers or leads_to_script:
            self.wrong.append(f"<{tag} {found}>")


def test_s9_script_in_names_is_text(row: Row) -> None:
    """Script in prompts, models, users and notes is shown as text, and no page has
    script of its own in it."""
    operator = signed_in(row)
    chat = {"model": HOSTILE, "messages": [{"role": "user", "content": HOSTILE}], "stream": False}
    names = [("X-User", HOSTILE), ("User-Agent", HOSTILE), ("Referer", HOSTILE)]
    assert row.ask("POST", "/api/chat", chat, headers=names).status in (400, 404)
    assert row.ask("POST", "/api/chat", chat | {"model": MODEL}, headers=names).status == 200
    name = f"s9-{row.door}"
    assert (
        operator.post(
            "/admin/keys/create", {"name": name, "scopes": "read", "note": HOSTILE}
        ).status
        == 200
    )
    wait_until(
        lambda: "data-canary" in operator.get("/admin/requests").text,
        20,
        "the request is not listed",
    )
    assert (
        HOSTILE not in operator.get("/admin/requests").text
        and "data-canary" in operator.get("/admin/keys").text
    )
    pages = sorted(
        {route.path for route in page_routes() if route.method == "GET"} - {"/admin/events"}
    )
    for path in [each for each in pages if not each.startswith("/admin/static/")]:
        answer = operator.get(path)
        policy = str(answer.headers.get("Content-Security-Policy"))
        assert (
            "default-src 'self'" in policy and "unsafe" not in policy and "script-src" not in policy
        )
        reader = ElementReader()
        reader.feed(answer.text)
        assert reader.wrong == [], path
    assert operator.post("/admin/keys/revoke", {"name": name, "confirm": name}).status == 303


# S10

GUESSES = [
    ("admin", word) for word in ("", "admin", "password", "ollama", "changeme", "123456")
] + [("root", "root")]


def test_s10_first_start_has_no_default_password(door: str, tmp_path: Path) -> None:
    """A fresh installation: one token, shown once next to the address of the pages, in a
    file for its owner only."""
    with Gateway("service: {base_url: 'demo:'}\n", workers=1, records=True) as gateway:
        with Nginx(tmp_path, f"127.0.0.1:{gateway.port}") as nginx:
            url = nginx.url if door == "nginx" else gateway.url
            path = gateway.state_directory / "first-token"
            token, output = path.read_text().strip(), gateway.output()
            assert output.count(token) == 1
            assert f"Sign in with it at {gateway.url}/admin" in output
            stranger = PageClient(url)
            form = stranger.get("/admin").text
            assert 'name="token"' in form and 'name="password"' not in form and token not in form
            for user, password in GUESSES:
                assert stranger.sign_in_with_password(password, user).status == 401
            for word in ("", "admin", "first-start", "ollama"):
                assert stranger.sign_in(word).status == 401
            assert stranger.get("/admin/keys").status == 302
            operator = PageClient(url)
            assert operator.sign_in(token).status == 303
            assert operator.get("/admin/keys").status == 200
            pages = [
                operator.get(route.path).text for route in page_routes() if route.method == "GET"
            ]
            assert not [text for text in pages if token in text]
        gateway.stop()
        gateway.start()
        assert gateway.output().count(token) == 1
        files = [path, *(gateway.state_directory / "sessions").iterdir()]
        assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
        assert stat.S_IMODE((gateway.state_directory / "sessions").stat().st_mode) == 0o700


# S11


def test_s11_guessed_password_and_stolen_cookie(row: Row, tmp_path: Path) -> None:
    """Guesses are slowed per address and for the account; a cookie is dead after signing out, new
    at each sign-in, and out of reach of scripts, other sites and plain HTTP."""
    row.allow_no_probe_p99("passwords are checked, which takes a processor")
    limited = row.rig.configured(
        auth={**row.rig.config["auth"], "max_failed_logins": MAX_FAILED_LOGINS}
    )
    row.gateway.write_config(limited | {"server": {"trusted_proxies": ["127.0.0.0/8"]}})
    try:
        check_guessing(row)
    finally:
        row.rig.restore_configuration()
    client = signed_in(row)
    first = client.cookie
    for token in (OPERATOR, TOKEN):
        fixed = client.cookie
        answer = client.post("/admin/sign-in", {"token": token})
        [cookie] = answer.headers.get_all("Set-Cookie")
        assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Path=/admin", "SameSite=Strict"}
        assert client.cookie != fixed
        stolen = PageClient(row.url)
        stolen.cookie = fixed
        assert stolen.get("/admin/keys").status == 302
    client.get("/admin/me")
    stolen = PageClient(row.url)
    stolen.cookie = client.cookie
    assert "Sign out" in stolen.get("/admin/me").text
    client.post("/admin/sign-out")
    for cookie in (
        stolen.cookie,
        first,
        "ollama-proxy=" + "A" * 43,
        "ollama-proxy=../../first-token",
    ):
        for _ in range(4):  # every worker
            stolen.cookie = cookie
            assert "Sign out" not in stolen.get("/admin/me").text
    check_tls(row, tmp_path)


def check_guessing(row: Row) -> None:
    """Every worker counts for itself, so there are more guesses than the limit."""

    numbers = itertools.count()

    def guess(address: str) -> int:
        """Another password each time: one that was wrong a moment ago is not counted again."""
        # On the way are a client and a proxy, both on this machine, which is trusted.
        headers = {"X-Forwarded-For": address, "Origin": row.gateway.url}
        body = f"user=admin&password=guess-{next(numbers)}"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return request(row.gateway.url, "POST", "/admin/sign-in", body, {**headers, **kind}).status

    def guess_often() -> set[int]:
        return {guess("192.0.2.1") for _ in range(2 * MAX_FAILED_LOGINS * row.gateway.workers)}

    # Until every worker has the new limit, and has counted that many.
    wait_until(lambda: guess_often() == {429}, 20, "guesses are not limited")
    # From now on it does not matter where they come from.
    assert {guess(f"198.51.100.{number}") for number in range(30)} == {429}
    # The right password is no way to find out that it is right.
    body = f"user=admin&password={PASSWORD}"
    headers = {"X-Forwarded-For": "203.0.113.5", "Origin": row.gateway.url}
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    right = {
        request(row.gateway.url, "POST", "/admin/sign-in", body, headers).status for _ in range(8)
    }
    assert right == {429}


def check_tls(row: Row, directory: Path) -> None:
    """Behind nginx with a certificate, the cookie is for TLS only."""
    authority = Authority(directory)
    authority.server("IP:127.0.0.1")
    port = free_port()
    changes = {
        "# listen 443 ssl default_server;": f"listen 127.0.0.1:{port} ssl default_server;",
        "# ssl_certificate     /etc/ssl/ollama-proxy/fullchain.pem;": f"ssl_certificate {directory / 'server.crt'};",
        "# ssl_certificate_key /etc/ssl/ollama-proxy/privkey.pem;": f"ssl_certificate_key {directory / 'server.key'};",
        "# ssl_protocols": "ssl_protocols",
    }
    trusted = ssl.create_default_context(cafile=authority.certificate)
    with Nginx(directory, f"127.0.0.1:{row.gateway.port}", changes):
        url = f"https://127.0.0.1:{port}"
        headers = {"Origin": url, "Content-Type": "application/x-www-form-urlencoded"}
        answer = request(
            url, "POST", "/admin/sign-in", f"token={OPERATOR}", headers, ssl_context=trusted
        )
        [cookie] = answer.headers.get_all("Set-Cookie")
        assert cookie.startswith("__Secure-ollama-proxy=") and "Secure" in cookie.split("; ")
        plain = headers | {"Origin": url.replace("https", "http")}
        assert (
            request(
                url, "POST", "/admin/sign-in", f"token={OPERATOR}", plain, ssl_context=trusted
            ).status
            == 403
        )
        page = request(
            url, path="/admin", headers={"Cookie": cookie.split(";")[0]}, ssl_context=trusted
        )
        assert "Sign out" in page.text
