"""Who a browser is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ollama_proxy.admin.pages.identity import is_password, read_user_header
from ollama_proxy.policy import hash_password
from ollama_proxy.settings.admin import Admin, PasswordHash
from tests.rig.in_process import TOKEN
from tests.rig.tables import each_row
from tests.unit.admin.pages.conftest import MEMBER, PASSWORD, OpenPages, Visitor

PROXIED: dict[str, Any] = {
    "server": {"trusted_proxies": ["127.0.0.1"]},
    "admin": {"user_header": "X-Forwarded-User"},
}


def is_in(visitor: Visitor, **headers: str) -> bool:
    visitor.get("/admin", **headers)  # where a proxy's name signs in
    return "Sign out" in visitor.get("/admin/me", **headers).text


def test_a_session_stands_for_its_token(visitor: Visitor) -> None:
    assert not is_in(visitor)
    assert visitor.post("/admin/sign-in", {"token": f"  {MEMBER} "}).status_code == 303
    assert is_in(visitor)


@pytest.mark.parametrize(
    "token", ["", "wrong", "x" * 5000, "张", "a b", "\0", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_what_is_no_token_opens_no_session(visitor: Visitor, token: Any) -> None:
    assert visitor.post("/admin/sign-in", {"token": token}).status_code in (400, 401)
    assert visitor.cookie == ""


def test_a_session_ends_with_its_token_and_with_the_password(open_pages: OpenPages) -> None:
    visitor = open_pages().sign_in()
    visitor.post("/admin/keys/create", {"name": "web", "scopes": ["read"]})
    gateway = visitor.app.app.extensions["ollama_proxy"]["gateway"]
    settings = gateway.settings
    by_password = Visitor(visitor.app)
    assert (
        by_password.post("/admin/sign-in", {"user": "admin", "password": PASSWORD}).status_code
        == 303
    )
    by_token = Visitor(visitor.app).sign_in(MEMBER)
    assert is_in(by_password) and is_in(by_token)
    from dataclasses import replace

    [operator, _] = settings.auth.generate_tokens
    changed = replace(
        settings,
        auth=replace(settings.auth, generate_tokens=(operator,)),
        admin=replace(
            settings.admin, password_hash=PasswordHash(hash_password("another password"))
        ),
    )
    gateway.apply(changed)
    assert not is_in(by_password)
    assert not is_in(by_token)
    assert is_in(visitor)


def test_the_administrator_may_do_everything(visitor: Visitor) -> None:
    assert (
        visitor.post("/admin/sign-in", {"user": "admin", "password": PASSWORD}).status_code == 303
    )
    assert visitor.get("/admin/keys").status_code == 200


@pytest.mark.parametrize(
    ("user", "password"),
    [("admin", "wrong"), ("root", PASSWORD), ("Admin", PASSWORD), ("admin", "")],
)
def test_only_the_user_admin_has_the_password(visitor: Visitor, user: str, password: str) -> None:
    assert visitor.post("/admin/sign-in", {"user": user, "password": password}).status_code == 401


def test_without_a_password_nobody_signs_in_with_one(open_pages: OpenPages) -> None:
    visitor = open_pages(admin={})
    assert 'name="password"' not in visitor.get("/admin").text
    for password in ("", "admin", "password"):
        assert (
            visitor.post("/admin/sign-in", {"user": "admin", "password": password}).status_code
            == 401
        )


def test_a_user_that_does_not_exist_takes_as_long_as_a_wrong_password() -> None:
    admin = Admin(password_hash=PasswordHash(hash_password(PASSWORD)))
    times = {}
    for name, settings, user in (
        ("wrong", admin, "admin"),
        ("unknown", admin, "x"),
        ("none", Admin(), "admin"),
    ):
        started = time.process_time()
        assert not is_password(settings, user, "wrong")
        times[name] = time.process_time() - started
    assert max(times.values()) < 3 * min(times.values()), times


# --- Named by a proxy ---


def test_a_trusted_proxy_names_who_has_signed_in(open_pages: OpenPages) -> None:
    visitor = open_pages(**PROXIED)
    assert is_in(visitor, X_Forwarded_User="member")
    assert visitor.get("/admin/keys", X_Forwarded_User="member").status_code == 403
    # Another person.
    assert visitor.get("/admin/keys", X_Forwarded_User="operator").status_code == 302
    answer = visitor.get("/admin?next=/admin/keys", X_Forwarded_User="operator")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/keys")
    assert visitor.get("/admin/keys", X_Forwarded_User="operator").status_code == 200
    assert visitor.get("/admin/keys").status_code == 302  # the proxy names nobody any more


def test_an_unknown_name_is_refused_and_audited(open_pages: OpenPages, records: Any) -> None:
    visitor = open_pages(**PROXIED)
    answer = visitor.get("/admin", X_Forwarded_User="<b>eve</b>")
    assert answer.status_code == 403
    assert "<b>eve" not in answer.text
    [row] = records.query("list_audit")["rows"]
    assert (row["by"], row["action"], row["subject"], row["from"]) == (
        "<b>eve</b>",
        "refuse",
        "sign-in",
        "127.0.0.1",
    )


@pytest.mark.parametrize(
    "config", [{"admin": {"user_header": "X-Forwarded-User"}}, {"server": PROXIED["server"]}]
)
def test_nobody_else_names_anybody(open_pages: OpenPages, config: dict[str, Any]) -> None:
    assert not is_in(open_pages(**config), X_Forwarded_User="operator")


def test_a_name_does_not_replace_a_session_with_a_token(open_pages: OpenPages) -> None:
    visitor = open_pages(**PROXIED).sign_in(TOKEN)
    assert visitor.get("/admin/keys", X_Forwarded_User="member").status_code == 200


@each_row(
    ("environ", "is_proxy", "name"),
    [
        ({"HTTP_X_FORWARDED_USER": " anna "}, True, "anna"),
        ({"HTTP_X_FORWARDED_USER": "anna"}, False, None),
        ({"HTTP_X_FORWARDED_USER": " "}, True, None),
        ({}, True, None),
        # Nobody's name: the client has sent one, too.
        ({"HTTP_X_FORWARDED_USER": "anna,bert"}, True, "anna,bert"),
    ],
)
def test_the_header_is_that_of_the_settings(
    environ: dict[str, str], is_proxy: bool, name: str | None
) -> None:
    assert (
        read_user_header(environ, Admin(user_header="x-forwarded-User"), is_proxy=is_proxy) == name
    )
    assert read_user_header(environ, Admin(), is_proxy=is_proxy) is None
