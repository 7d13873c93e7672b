"""Errors of pages are pages, and every page has its headers."""

from __future__ import annotations

import pytest

from ollama_proxy.admin.pages.errors import PageErrors
from ollama_proxy.errors import BadRequest
from tests.unit.admin.pages.conftest import Visitor

PATHS = [
    "/admin",
    "/admin/keys",
    "/admin/keys/edit?name=x",
    "/admin/nothing",
    "/admin/settings",
    "/admin/static/nothing",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("is_in", [True, False])
def test_every_page_has_strict_headers(visitor: Visitor, path: str, is_in: bool) -> None:
    if is_in:
        visitor.sign_in()
    headers = visitor.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "same-origin")


def test_an_error_is_a_page_with_the_id_of_the_request(operator: Visitor) -> None:
    answer = operator.get("/admin/nothing")
    assert (answer.status_code, answer.content_type) == (404, "text/html; charset=utf-8")
    assert answer.headers["X-Request-Id"] in answer.text


@pytest.mark.parametrize(("language", "said"), [("en", "Sign out"), ("zh", "退出")])
def test_an_error_is_in_the_language_of_the_reader(
    operator: Visitor, language: str, said: str
) -> None:
    assert said in operator.get("/admin/nothing", Accept_Language=language).text


def test_a_request_that_is_no_http_gets_a_page_without_templates() -> None:
    page = PageErrors().render_error(BadRequest("<b>"), "id")
    assert (page[:15], b"<b>" in page) == (b"<!doctype html>", False)
