"""The form for signing in, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.admin.pages.sign_in import find_next
from tests.rig.in_process import TOKEN
from tests.unit.admin.pages.conftest import MEMBER, PASSWORD, OpenPages, Visitor


def test_pages_lead_to_the_form_and_back(visitor: Visitor) -> None:
    answer = visitor.get("/admin/keys?sort=name")
    assert (answer.status_code, answer.headers["Location"]) == (
        302,
        "/admin?next=%2Fadmin%2Fkeys%3Fsort%3Dname",
    )
    form = visitor.get(answer.headers["Location"])
    assert 'name="next" value="/admin/keys?sort=name"' in form.text
    again = visitor.post("/admin/sign-in", {"token": "wrong", "next": "/admin/keys"})
    assert (again.status_code, 'name="next" value="/admin/keys"' in again.text) == (401, True)
    done = visitor.post("/admin/sign-in", {"token": TOKEN, "next": "/admin/keys"})
    assert (done.status_code, done.headers["Location"]) == (303, "/admin/keys")


@pytest.mark.parametrize(
    "foreign",
    [
        "https://evil.example",
        "//evil.example",
        "/admin//evil.example",
        "/api/tags",
        "/administrator",
        "/admin/../x",
        "/admin\\x",
        "javascript:alert(1)",
        "/admin/keys\nX: y",
        "/admin@evil.example",
        "/admin?x=<",
    ],
)
def test_the_form_leads_nowhere_else(visitor: Visitor, foreign: str) -> None:
    assert find_next({"next": foreign}) == ""
    assert (
        visitor.post("/admin/sign-in", {"token": TOKEN, "next": foreign}).headers["Location"]
        == "/admin"
    )


def test_an_error_does_not_say_what_was_wrong(visitor: Visitor) -> None:
    texts = set()
    for fields in (
        {"token": "x"},
        {"user": "admin", "password": "x"},
        {"user": "root", "password": PASSWORD},
    ):
        answer = visitor.post("/admin/sign-in", fields)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (401, "no-store")
        texts.add(answer.text)
    assert len(texts) == 1
    assert PASSWORD not in texts.pop()


@pytest.mark.parametrize("guess", [{"token": "x{}"}, {"user": "admin", "password": "x{}"}])
def test_guessing_is_limited(open_pages: OpenPages, guess: dict[str, str]) -> None:
    tokens: list[Any] = [{"name": "operator", "token": TOKEN}]
    visitor = open_pages(auth={"generate_tokens": tokens, "max_failed_logins": 3})
    statuses = [
        visitor.post(
            "/admin/sign-in", {name: value.format(number) for name, value in guess.items()}
        ).status_code
        for number in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


def test_only_pages_of_the_own_rights_are_shown(visitor: Visitor) -> None:
    visitor.sign_in(MEMBER)
    assert visitor.get("/admin/keys").status_code == 403
    assert "/admin/keys" not in visitor.get("/admin/me").text


def test_without_pages_there_is_no_form(open_pages: OpenPages) -> None:
    visitor = open_pages(admin={"enabled": False})
    for path in ("/admin", "/admin/keys", "/admin/static/style.css"):
        assert visitor.get(path).status_code == 404
    assert visitor.post("/admin/sign-in", {"token": TOKEN}).status_code == 404


def test_pages_are_for_the_networks_of_the_settings(open_pages: OpenPages) -> None:
    visitor = open_pages(admin={"allow": ["10.0.0.0/8"]})
    for path in ("/admin", "/admin/static/style.css"):
        assert visitor.get(path).status_code == 403
    assert visitor.post("/admin/sign-in", {"token": TOKEN}).status_code == 403
