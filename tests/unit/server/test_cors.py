"""Headers for web pages: on routes of the APIs, for the configured origins only."""

from __future__ import annotations

import pytest

from tests.rig.in_process import InProcess, in_process

PAGE = "https://page.example"


def test_pages_of_any_origin_may_read_the_api(demo_app: InProcess) -> None:
    answer = demo_app.ask("GET", "/api/tags", Origin=PAGE)
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", PAGE)
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("path", ["/", "/readyz"])
def test_other_routes_are_for_no_page(demo_app: InProcess, path: str) -> None:
    assert "Access-Control-Allow-Origin" not in demo_app.ask("GET", path, Origin=PAGE).headers


def test_callers_that_are_no_page_get_no_such_header(demo_app: InProcess) -> None:
    assert "Access-Control-Allow-Origin" not in demo_app.ask("GET", "/api/tags").headers


@pytest.mark.parametrize(("origin", "allowed"), [(PAGE, True), ("https://other.example", False)])
def test_only_listed_origins(origin: str, allowed: bool) -> None:
    with in_process(cors={"origins": [PAGE]}) as app:
        headers = app.ask("GET", "/api/tags", Origin=origin).headers
        assert (headers.get("Access-Control-Allow-Origin") == origin) is allowed
