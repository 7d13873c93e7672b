"""The page of settings."""

from __future__ import annotations

import re
from html import unescape

import pytest

from ollama_proxy.settings import setting_names
from tests.rig.in_process import TOKEN
from tests.unit.admin.pages.conftest import PASSWORD_HASH, Visitor


def names(text: str) -> list[str]:
    return re.findall(r'<th scope="row" class="wrap" data-value="([^"]+)"', text)


def test_every_setting_is_there_with_its_source_and_without_secrets(operator: Visitor) -> None:
    text = operator.get("/admin/settings").text
    assert set(setting_names()) - {"models", "upstreams"} <= set(names(text))
    assert "config.yaml:1" in text
    assert PASSWORD_HASH.split("$")[-1] not in text
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=max_waiting", ["queue.max_waiting"]),
        ("search=MAX_WAITING", ["queue.max_waiting"]),
        ("search=no-such-thing", []),
        ("changed=yes", ["auth.generate_tokens", "service.base_url", "admin.password_hash"]),
        ("search=admin&changed=yes", ["auth.generate_tokens", "admin.password_hash"]),
    ],
)
def test_settings_are_searched(operator: Visitor, query: str, found: list[str]) -> None:
    assert names(operator.get(f"/admin/settings?{query}").text) == found


def test_a_search_is_shown_as_text(operator: Visitor) -> None:
    assert "<b>x" not in operator.get("/admin/settings?search=<b>x</b>").text


def test_a_file_is_checked_before_it_is_saved(operator: Visitor) -> None:
    text = "queue: {max_waiting: x}\r\n# </textarea><b>\r\nnope: 1\r\n"
    answer = operator.post("/admin/settings/check", {"yaml": text})
    assert answer.status_code == 200
    assert "<b>Line 1:</b> queue.max_waiting must be" in answer.text
    assert "<b>Line 3:</b> unknown setting" in answer.text
    assert "</textarea><b>" not in answer.text
    assert "queue: {max_waiting: x}\n# </textarea><b>\nnope: 1" in unescape(answer.text)


def test_a_valid_file_is_valid(operator: Visitor) -> None:
    text = f"auth: {{generate_tokens: [{TOKEN}]}}\nqueue: {{max_waiting: 7}}\n"
    assert "This file is valid." in operator.post("/admin/settings/check", {"yaml": text}).text
    assert operator.app.app.extensions["ollama_proxy"]["gateway"].settings.queue.max_waiting != 7
