"""Changes by browsers: from a page of this gateway, with the token of this session."""

from __future__ import annotations

import pytest

from ollama_proxy.admin.pages.csrf import check_origin
from ollama_proxy.errors import Forbidden
from tests.rig.tables import each_row
from tests.unit.admin.pages.conftest import MEMBER, ORIGIN, OpenPages, Visitor

#: Of a request to http://gw:8080.
OWN = [
    {"HTTP_ORIGIN": "http://gw:8080"},
    {"HTTP_ORIGIN": "HTTP://GW:8080", "HTTP_SEC_FETCH_SITE": "same-origin"},
    {"HTTP_ORIGIN": "https://gw:8080"},  # behind a proxy that took the TLS off
    {"HTTP_ORIGIN": "http://gw:8080", "HTTP_SEC_FETCH_SITE": "none"},
    {"HTTP_SEC_FETCH_SITE": "same-origin"},
]
FOREIGN = [
    {},
    {"HTTP_ORIGIN": ""},
    {"HTTP_ORIGIN": "null"},
    {"HTTP_ORIGIN": "http://gw"},
    {"HTTP_ORIGIN": "http://gw:80800"},
    {"HTTP_ORIGIN": "http://evil.example"},
    {"HTTP_ORIGIN": "http://gw:8080.evil.example"},
    {"HTTP_ORIGIN": "http://gw:8080", "HTTP_SEC_FETCH_SITE": "cross-site"},
    {"HTTP_ORIGIN": "http://gw:8080", "HTTP_SEC_FETCH_SITE": "same-site"},
    {"HTTP_SEC_FETCH_SITE": "same-site"},
    {"HTTP_SEC_FETCH_SITE": "none"},
]


@each_row("headers", OWN)
def test_pages_of_the_gateway_may_change_something(headers: dict[str, str]) -> None:
    check_origin({"HTTP_HOST": "gw:8080", **headers})


@each_row("headers", FOREIGN)
def test_nothing_else_may(headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        check_origin({"HTTP_HOST": "gw:8080", **headers})


def test_with_tls_a_page_without_it_is_another_site() -> None:
    environ = {"HTTP_HOST": "gw", "HTTP_ORIGIN": "http://gw", "ollama_proxy.came_by_tls": True}
    with pytest.raises(Forbidden):
        check_origin(environ)
    check_origin({**environ, "HTTP_ORIGIN": "https://gw"})


def test_a_form_needs_the_token_of_its_session(operator: Visitor, open_pages: OpenPages) -> None:
    own, other = operator.csrf, Visitor(operator.app).sign_in(MEMBER).csrf
    for token, status in ((own, 200), ("", 403), ("x", 403), (other, 403), (own + "x", 403)):
        name = f"key{status}{len(token)}"
        assert (
            operator.post(
                "/admin/keys/create", {"name": name, "scopes": "read", "csrf_token": token}
            ).status_code
            == status
        )


def test_a_token_ends_with_its_session(operator: Visitor) -> None:
    before = operator.csrf
    operator.post("/admin/sign-out")
    operator.sign_in()
    assert operator.csrf != before
    assert (
        operator.post("/admin/keys/create", {"name": "late", "csrf_token": before}).status_code
        == 403
    )


def test_two_pages_of_a_session_may_be_open(operator: Visitor) -> None:
    first = operator.csrf
    operator.get("/admin/keys")
    answer = operator.post(
        "/admin/keys/create", {"name": "web", "scopes": "read", "csrf_token": first}
    )
    assert answer.status_code == 200


def test_signing_in_needs_the_origin_alone(visitor: Visitor) -> None:
    assert visitor.get("/admin").status_code == 200
    assert visitor.csrf == ""
    for headers in (
        {"Origin": ""},
        {"Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert visitor.post("/admin/sign-in", {"token": MEMBER}, **headers).status_code == 403
    assert visitor.post("/admin/sign-in", {"token": MEMBER}).status_code == 303


@pytest.mark.parametrize("path", ["/admin/api/tokens", "/admin/call/admin/api/tokens"])
def test_scripts_send_the_token_in_a_header(operator: Visitor, path: str) -> None:
    sent = {"Origin": ORIGIN, "X_CSRF_Token": operator.csrf}
    assert operator.send("POST", path, json={"name": "a"}, **sent).status_code == 201
    for lacking in (
        {"Origin": ORIGIN},
        {"X_CSRF_Token": operator.csrf},
        sent | {"Origin": "http://evil.example"},
    ):
        assert operator.send("POST", path, json={"name": "b"}, **lacking).status_code == 403
