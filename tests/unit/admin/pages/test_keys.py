"""The page of keys."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.pages.conftest import Visitor

FORM: dict[str, Any] = {
    "name": "web",
    "scopes": ["read", "generate"],
    "models": "qwen3*",
    "expires": "2099-01-31",
    "limit.requests_per_minute": "60",
    "note": "of the team",
}


def stored(records: InProcessRecords) -> dict[str, dict[str, Any]]:
    return {key["name"]: key for key in records.query("list_tokens")}


def shown_token(text: str) -> str:
    [token] = set(re.findall(r"op_[0-9A-Za-z]{38}", text))
    return str(token)


def told(visitor: Visitor) -> str:
    """The message of the next page."""
    return " ".join(
        re.findall(r'class="message[^>]*>\s*([^<]*)<', visitor.get("/admin/keys").text)
    ).strip()


def test_a_new_key_is_shown_once(operator: Visitor, records: InProcessRecords) -> None:
    answer = operator.post("/admin/keys/create", FORM)
    token = shown_token(answer.text)
    assert f'name="token" value="{token}"' in answer.text
    assert 'action="/admin/connect"' in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    key = stored(records)["web"]
    assert (key["scopes"], key["models"], key["expires"]) == (
        ["generate", "read"],
        ["qwen3*"],
        "2099-01-31",
    )
    assert (key["limits"], key["note"], key["created_by"]) == (
        {"requests_per_minute": 60},
        "of the team",
        "operator",
    )
    page = operator.get("/admin/keys").text
    assert token not in page
    assert all(
        text in page
        for text in (token[:7], "60 requests/min", "qwen3*", "2099-01-31", "of the team")
    )


@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        ({"name": "no name"}, 400, "name must be a name"),
        ({"name": "operator"}, 409, "operator is in config.yaml:1"),
        ({"limit.concurrent": "many"}, 400, "limits.concurrent must be"),
        ({"scopes": []}, 400, "name at least one scope"),
        ({"scopes": ["root"]}, 400, "scopes"),
        ({"expires": "soon"}, 400, "expires must be"),
        ({"user_limit.concurrent": "2"}, 400, "users.limits needs users.header"),
    ],
)
def test_what_is_not_valid_comes_back_with_the_error(
    operator: Visitor, records: InProcessRecords, change: dict[str, Any], status: int, problem: str
) -> None:
    answer = operator.post("/admin/keys/create", FORM | change)
    assert answer.status_code == status
    text = unescape(answer.text)
    assert problem in text
    assert all(
        f'value="{value}"' in text
        for value in (FORM | change).values()
        if isinstance(value, str) and "*" not in value
    )
    assert stored(records) == {}


def test_fields_that_the_form_does_not_have_change_nothing(
    operator: Visitor, records: InProcessRecords
) -> None:
    operator.post(
        "/admin/keys/create",
        FORM | {"digest": "0" * 64, "created_by": "x", "disabled": "yes", "truncate": "1"},
    )
    key = stored(records)["web"]
    assert (key["created_by"], key["disabled"]) == ("operator", False)


def test_a_key_is_changed(operator: Visitor, records: InProcessRecords) -> None:
    operator.post("/admin/keys/create", FORM)
    page = operator.get("/admin/keys/edit?name=web")
    assert 'name="limit.requests_per_minute" value="60"' in page.text
    answer = operator.post(
        "/admin/keys/change", FORM | {"limit.requests_per_minute": "", "scopes": ["read"]}
    )
    assert answer.status_code == 303
    assert (stored(records)["web"]["limits"], stored(records)["web"]["scopes"]) == ({}, ["read"])
    wrong = operator.post("/admin/keys/change", FORM | {"weight": "heavy"})
    assert (wrong.status_code, 'value="heavy"' in wrong.text, "weight must be" in wrong.text) == (
        400,
        True,
        True,
    )


def test_a_key_is_disabled_and_enabled(operator: Visitor, records: InProcessRecords) -> None:
    operator.post("/admin/keys/create", FORM)
    for action, is_disabled in (("disable", True), ("enable", False)):
        assert operator.post(f"/admin/keys/{action}", {"name": "web"}).status_code == 303
        assert told(operator) == f"web is {action}d."
        assert stored(records)["web"]["disabled"] is is_disabled


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_the_name_has_to_be_typed(
    operator: Visitor, records: InProcessRecords, action: str
) -> None:
    operator.post("/admin/keys/create", FORM)
    before = stored(records)
    for confirm in ({}, {"confirm": "wep"}, {"confirm": ""}):
        operator.post(f"/admin/keys/{action}", {"name": "web", **confirm})
        assert told(operator) == "Type the name of the key to confirm."
    assert stored(records) == before


def test_a_key_is_rotated(operator: Visitor, records: InProcessRecords) -> None:
    first = shown_token(operator.post("/admin/keys/create", FORM).text)
    second = shown_token(
        operator.post("/admin/keys/rotate", {"name": "web", "confirm": "web"}).text
    )
    assert first != second
    assert stored(records)["web"]["prefix"] == second[:7]


def test_a_key_is_revoked(operator: Visitor, records: InProcessRecords) -> None:
    operator.post("/admin/keys/create", FORM)
    operator.post("/admin/keys/revoke", {"name": "web", "confirm": " web "})
    assert (told(operator), stored(records)) == ("web is revoked.", {})


def test_keys_of_the_file_are_shown_with_their_line_and_stay(operator: Visitor) -> None:
    assert "config.yaml:1" in operator.get("/admin/keys").text
    page = operator.get("/admin/keys/edit?name=member").text
    assert "It is defined in config.yaml:1" in page
    assert 'action="/admin/keys/revoke"' not in page
    for action in ("change", "disable", "rotate", "revoke"):
        operator.post(
            f"/admin/keys/{action}", {"name": "member", "confirm": "member", "scopes": "read"}
        )
        assert "config.yaml:1" in told(operator)


def test_the_page_stays_up_without_the_records(
    operator: Visitor, records: InProcessRecords
) -> None:
    records.is_down = True
    answer = operator.get("/admin/keys")
    assert (answer.status_code, 'role="alert"' in answer.text) == (200, True)
    failed = operator.post("/admin/keys/create", FORM)
    assert (failed.status_code, 'value="web"' in failed.text) == (503, True)


def test_a_key_that_is_not_there_is_not_found(operator: Visitor) -> None:
    answer = operator.get("/admin/keys/edit?name=<i>x</i>")
    assert (answer.status_code, "<i>x" in answer.text) == (404, False)


CHINESE = {"Accept-Language": "zh-CN"}


def told_in_chinese(operator: Visitor, path: str, fields: dict[str, Any]) -> str:
    """What the page says of a form that is refused."""
    answer = operator.post(path, fields, **CHINESE)
    text = operator.get("/admin/keys", **CHINESE).text if answer.status_code == 303 else answer.text
    return " ".join(re.findall(r'class="message error"[^>]*>\s*([^<]*)<', text)).strip()


def test_refusals_are_in_the_language_of_the_reader(
    operator: Visitor, records: InProcessRecords
) -> None:
    operator.post("/admin/keys/create", FORM)
    typed = {"name": "web", "confirm": "other"}
    absent = {"name": "absent", "confirm": "absent"}
    of_file = {"name": "member", "confirm": "member"}
    assert told_in_chinese(operator, "/admin/keys/create", FORM) == "已经有名为 web 的密钥。"
    assert told_in_chinese(operator, "/admin/keys/revoke", typed) == "请输入密钥名称以确认。"
    assert told_in_chinese(operator, "/admin/keys/revoke", absent) == "没有名为 absent 的密钥。"
    assert told_in_chinese(operator, "/admin/keys/revoke", of_file).startswith(
        "member 定义在 config.yaml:1 中："
    )
    records.is_down = True
    assert told_in_chinese(operator, "/admin/keys/create", FORM | {"name": "b"}).endswith(
        "记录数据库暂时不可用，请稍后重试。"
    )


def test_errors_are_in_the_language_of_the_reader_and_those_of_the_api_are_english(
    operator: Visitor,
) -> None:
    outdated = {"name": "web", "csrf_token": "wrong"}
    answer = operator.post("/admin/keys/disable", outdated, **CHINESE)
    assert (answer.status_code, "此表单已过期：请重新加载页面。" in answer.text) == (403, True)
    foreign = operator.post(
        "/admin/keys/disable", outdated, Origin="https://elsewhere.example", **CHINESE
    )
    assert (foreign.status_code, "该请求不是由本网关的页面发出的。" in foreign.text) == (403, True)
    assert (
        "没有名为 absent 的密钥。" in operator.get("/admin/keys/edit?name=absent", **CHINESE).text
    )
    for path in ("/admin/api/tokens/absent", "/admin/api/nothing"):
        assert operator.get(path, **CHINESE).text.isascii()
    refused = operator.send(
        "DELETE", "/admin/api/tokens/absent", Origin="http://localhost", **CHINESE
    )
    assert (refused.status_code, refused.text.isascii()) == (403, True)
