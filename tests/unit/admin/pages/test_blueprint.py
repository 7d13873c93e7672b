"""All pages together: who may see them, their navigation and their static files."""

from __future__ import annotations

import gzip

import pytest

from ollama_proxy.admin.pages.blueprint import NAVIGATION, PAGE_SCOPES, STATIC, read_asset
from ollama_proxy.errors import NotFound
from ollama_proxy.policy import ADMIN, ANY_TOKEN, PUBLIC
from tests.rig.tables import each_row
from tests.unit.admin.pages.conftest import Visitor

#: What callers without a session may see and do.
OPEN = {"admin-static", "admin-overview-page.show_overview", "admin-sign-in-page.sign_in"}


def test_every_view_has_its_scope(operator: Visitor) -> None:
    endpoints = {rule.endpoint for rule in operator.app.app.url_map.iter_rules()}
    views = {name for name in endpoints if name.endswith("static") or "-page." in name}
    assert views == PAGE_SCOPES.keys()
    assert set(PAGE_SCOPES.values()) <= {ADMIN, ANY_TOKEN, PUBLIC}
    assert {name for name, scope in PAGE_SCOPES.items() if scope == PUBLIC} == OPEN


def test_navigation_has_every_page_and_marks_the_current_one(operator: Visitor) -> None:
    text = operator.get("/admin/keys").text
    assert all(f">{title}</a>" in text for _, title in NAVIGATION)
    assert 'href="/admin/keys" aria-current="page"' in text


def test_static_files_are_kept_under_the_address_of_their_version_only(visitor: Visitor) -> None:
    data, content_type, version = read_asset("style.css")
    answer = visitor.get(f"/admin/static/style.css?v={version}")
    assert (answer.data, answer.content_type) == (data, content_type)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    for query in ("", "?v=", "?v=0123456789ab"):
        assert visitor.get(f"/admin/static/style.css{query}").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("accepted", "coding"), [("gzip, br", "gzip"), ("", None), ("gzip;q=0", None)]
)
def test_static_files_are_compressed_for_those_who_take_it(
    visitor: Visitor, accepted: str, coding: str | None
) -> None:
    answer = visitor.get("/admin/static/style.css", **{"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == coding
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert (gzip.decompress(answer.data) if coding else answer.data) == read_asset("style.css")[0]


def test_every_static_file_can_be_read() -> None:
    files = [
        path
        for path in STATIC.rglob("*")
        if path.is_file() and path.suffix in (".css", ".js", ".svg")
    ]
    assert len(files) > 5
    for path in files:
        assert read_asset(str(path.relative_to(STATIC)))[0] == path.read_bytes()


@each_row(
    "name",
    [
        "..",
        "../page.py",
        "vendor/../../page.py",
        "/etc/passwd",
        "vendor",
        "vendor/",
        "x.css",
        "style.css/",
        "\0",
        ".x",
    ],
)
def test_nothing_else_can_be_read(name: str) -> None:
    with pytest.raises(NotFound):
        read_asset(name)
