"""Sessions of the admin pages: they end with what they stand for, and no page has a secret. That
they end in every worker is in tests/timing/test_pages_overview.py."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from tests.reliability.sweep import page_routes
from tests.rig.boxes import Box
from tests.rig.calls import FACES, last_error
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Head, Lines
from tests.rig.fixtures import module_fixture
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient

OPERATOR, MEMBER = "canary-operator-token", "canary-member-token"
PASSWORD, NEXT_PASSWORD = "canary horse battery staple", "another horse battery staple"
FACE = FACES["native chat"]


def hash_of(password: str) -> str:
    return PasswordHasher(time_cost=1, memory_cost=1024).hash(password)


def config(box: Box, password_hash: str) -> dict[str, object]:
    auth = {
        "admin_tokens": [{"name": "operator", "token": OPERATOR}],
        "generate_tokens": [{"name": "member", "token": MEMBER}],
    }
    admin = {"password_hash": password_hash, "user_header": "X-Forwarded-User"}
    # 127.0.0.2 is the proxy that signs people in.
    return {
        "auth": auth,
        "admin": admin,
        "upstreams": [box.declared],
        "server": {"trusted_proxies": ["127.0.0.1"]},
    }


box = module_fixture(lambda: Box("box1", ["m"]))


@pytest.fixture(scope="module")
def gateway(box: Box) -> Iterator[LocalGateway]:
    with LocalGateway(config(box, hash_of(PASSWORD)), records=True) as gateway:
        yield gateway


@pytest.fixture
def operator(gateway: LocalGateway) -> PageClient:
    client = PageClient(gateway)
    assert client.sign_in(OPERATOR).status == 303
    return client


def create_key(operator: PageClient, name: str, **fields: str) -> str:
    """The text of a new key."""
    answer = operator.post("/admin/keys/create", {"name": name, "scopes": "generate", **fields})
    assert answer.status == 200, answer.text
    [token] = set(re.findall(r"op_[0-9A-Za-z]{38}", answer.text))
    return str(token)


@pytest.mark.parametrize("action", ["revoke", "rotate", "disable"])
def test_sessions_and_streams_end_with_their_key(
    gateway: LocalGateway, box: Box, operator: PageClient, action: str
) -> None:
    name = f"key-{action}"
    token = create_key(operator, name)
    member = PageClient(gateway)
    wait_until(lambda: gateway.ask("/api/version", token=token).status != 401, 30)
    assert member.sign_in(token).status == 303
    box.script(
        FACE.upstream_path,
        [
            Head(200, {"Content-Type": "application/x-ndjson"}),
            Lines([FACE.line] * 200, delay_s=0.2),
        ],
    )
    body = {**FACE.body, "stream": True}
    with gateway.start(FACE.path, body, token=token) as stream:
        assert stream.read_some()
        operator.post(f"/admin/keys/{action}", {"name": name, "confirm": name})
        wait_until(lambda: member.get("/admin/me").status == 302, 30, "the session goes on")
        assert "withdrawn" in last_error(stream.read_all(), FACE)


def test_sessions_end_when_the_password_changes(gateway: LocalGateway, box: Box) -> None:
    client = PageClient(gateway)
    assert client.sign_in_with_password(PASSWORD).status == 303
    assert client.get("/admin/keys").status == 200
    gateway.apply(config(box, hash_of(NEXT_PASSWORD)))
    try:
        assert client.get("/admin/me").status == 302
        assert client.sign_in_with_password(PASSWORD).status == 401
        assert client.sign_in_with_password(NEXT_PASSWORD).status == 303
    finally:
        gateway.apply(config(box, hash_of(PASSWORD)))


def test_a_proxy_names_who_has_signed_in(gateway: LocalGateway, operator: PageClient) -> None:
    anna = PageClient(gateway, {"X-Forwarded-User": "operator"})
    assert "Sign out" in anna.get("/admin").text
    assert anna.get("/admin/keys").status == 200
    anna.headers["X-Forwarded-User"] = "member"
    assert anna.get("/admin/keys").status == 302
    anna.headers["X-Forwarded-User"] = "nobody-here"
    assert anna.get("/admin").status == 403
    entries = operator.get("/admin/api/audit").json()["rows"]
    assert [(row["by"], row["action"]) for row in entries[:1]] == [("nobody-here", "refuse")]
    # Which a program behind the proxy would take for the header.
    anna.headers = {"X_Forwarded_User": "operator"}
    anna.cookie = ""
    assert "Sign out" not in anna.get("/admin").text


NO_NAMES = (
    "<script>alert(1)</script>",
    "a b",
    "x" * 10_240,
    "\x00",
    "\x1b[31m",
    "a\r\nb",
    "../x",
    "",
    "'; DROP TABLE tokens; --",
)


def test_names_with_markup_are_refused_and_texts_are_shown_as_text(
    gateway: LocalGateway, operator: PageClient
) -> None:
    def names() -> list[str]:
        return [token["name"] for token in operator.get("/admin/api/tokens").json()["tokens"]]

    before = names()
    for name in NO_NAMES:
        answer = operator.post("/admin/keys/create", {"name": name, "scopes": "read"})
        assert answer.status == 400, name
        assert "<script>alert" not in answer.text
    assert names() == before
    texts = {
        "note": "<script>alert(1)</script>",
        "models": "<img src=x onerror=alert(1)>",
        "user_header": "X-User",
    }
    create_key(operator, "markup", **texts)
    for path in (
        "/admin/keys",
        "/admin/keys/edit?name=markup",
        "/admin/keys/edit?name=<script>alert(1)</script>",
    ):
        text = operator.get(path.replace("<", "%3C").replace(">", "%3E")).text
        assert "<script>alert" not in text and "<img" not in text


def test_no_page_has_a_secret(gateway: LocalGateway, operator: PageClient) -> None:
    """Neither of tokens, nor of passwords and their hashes, nor of other sessions."""
    token = create_key(operator, "secret")
    other = PageClient(gateway)
    assert other.sign_in_with_password(PASSWORD).status == 303
    stored = [path.name for path in (gateway.state_directory / "sessions").iterdir()]
    secrets = [
        OPERATOR,
        MEMBER,
        PASSWORD,
        token,
        "$argon2id$",
        other.cookie.partition("=")[2],
        *stored,
    ]
    pages = [
        route.path
        for route in page_routes()
        if route.method == "GET" and "/static/" not in route.path
    ]
    pages += [
        "/admin/keys/edit?name=secret",
        "/admin/api/tokens",
        "/admin/api/settings",
        "/admin/api/audit",
    ]
    for path in pages:
        answer = operator.get(path)
        shown = f"{answer.headers} {answer.text}"
        assert not [secret for secret in secrets if secret in shown], path
    files = [
        path
        for directory in (gateway.state_directory, gateway.logs_directory)
        for path in directory.rglob("*")
        if path.is_file()
    ]
    texts = {path: path.read_bytes().decode("latin-1") for path in files}
    assert not [
        path
        for path, text in texts.items()
        for secret in (token, OPERATOR, PASSWORD)
        if secret in text
    ]
