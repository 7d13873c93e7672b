"""How pages are declared, what their forms may be, and what they answer."""

from __future__ import annotations

import re

import pytest

from ollama_proxy.admin.pages.page import MAX_FIELDS, Page
from ollama_proxy.policy import ADMIN, ANY_TOKEN, PUBLIC
from tests.unit.admin.pages.conftest import Visitor


def test_a_page_has_its_address_and_scopes() -> None:
    page = Page("things", scope=ANY_TOKEN)

    @page.get()
    def show_things() -> str:
        return ""

    @page.get("/more")
    def show_more() -> str:
        return ""

    @page.post("/change", scope=ADMIN)
    def change() -> str:
        return ""

    lead = "admin-things-page"
    assert page.blueprint.url_prefix == "/admin/things"
    assert page.endpoint == f"{lead}.show_things"
    assert page.scopes == {
        f"{lead}.show_things": ANY_TOKEN,
        f"{lead}.show_more": ANY_TOKEN,
        f"{lead}.change": ADMIN,
    }
    assert Page("first", path="", scope=PUBLIC).blueprint.url_prefix == "/admin"


@pytest.mark.parametrize("body", [b"\xff=%ff", b"&".join([b"a=1"] * (MAX_FIELDS + 1))])
def test_what_is_no_form_is_refused(operator: Visitor, body: bytes) -> None:
    kind = "application/x-www-form-urlencoded"
    assert (
        operator.send(
            "POST", "/admin/keys/create", body, Origin="http://localhost", Content_Type=kind
        ).status_code
        == 400
    )


def test_a_form_that_is_too_large_is_refused(operator: Visitor) -> None:
    assert operator.post("/admin/keys/create", {"note": "x" * (1 << 20)}).status_code == 413


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/admin/keys/revoke", {"name": "web"}),
        ("/admin/models/delete", {"model": "tiny", "box": "box1"}),
        ("/admin/models/delete", {"at": "box1 tiny"}),
        ("/admin/models/remove", {"name": "house"}),
        ("/admin/upstreams/remove", {"name": "box1"}),
        ("/admin/upstreams/remove", {}),
    ],
)
@pytest.mark.parametrize("typed", [None, "", " ", "another"])
def test_what_ends_something_needs_its_name_typed(
    operator: Visitor, path: str, fields: dict[str, str], typed: str | None
) -> None:
    operator.post(path, fields if typed is None else fields | {"confirm": typed})
    assert re.search(
        r'class="message error">Type the name of the \w+ to confirm\.<',
        operator.get("/admin/keys").text,
    )


def test_a_message_is_shown_once(operator: Visitor) -> None:
    operator.post("/admin/keys/revoke", {"name": "<b>"})
    first, second = operator.get("/admin/keys").text, operator.get("/admin/keys").text
    assert ("to confirm" in first, "to confirm" in second) == (True, False)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(operator: Visitor, method: str) -> None:
    assert operator.send(method, "/admin/keys").status_code == 405
