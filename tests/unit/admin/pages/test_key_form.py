"""The form of a key: what is typed becomes what the API takes, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from ollama_proxy.admin.pages import key_form
from ollama_proxy.settings.managed import KeyFields, read_key, write_key
from ollama_proxy.settings.sharing import Limits
from ollama_proxy.settings.tokens import SCOPES
from tests.rig.tables import each_row

KEY: dict[str, Any] = {
    "name": "web",
    "scopes": ["generate", "read"],
    "models": ["qwen3*", "m"],
    "expires": "2099-01-31",
    "weight": 2.5,
    "priority": "background",
    "limits": {"requests_per_minute": 60, "cost_per_month": 0.5, "tokens_per_day": None},
    "users": {"header": "X-User", "limits": {"concurrent": 2}},
    "note": "of the team",
    "disabled": False,
}
PLAIN = (
    KEY
    | dict.fromkeys(("models", "expires", "weight", "priority", "users", "note"))
    | {"limits": {}}
)


def test_every_limit_and_scope_is_in_the_form() -> None:
    assert [each.name for each in fields(Limits)] == list(key_form.LIMIT_TITLES)
    assert key_form.SCOPE_TITLES.keys() == SCOPES


@pytest.mark.parametrize("key", [KEY, PLAIN])
def test_a_key_that_is_shown_and_sent_back_stays_the_same(key: dict[str, Any]) -> None:
    sent = key_form.read_fields(key_form.fill(key))
    same = {name: value for name, value in key.items() if name not in ("name", "disabled")}
    assert write_key(read_key(sent)) == write_key(read_key(same))


def test_every_field_but_the_state_is_in_the_form() -> None:
    assert key_form.read_fields(MultiDict()).keys() | {"disabled"} == {
        each.name for each in fields(KeyFields)
    }


def test_models_are_separated_by_commas_blanks_or_lines() -> None:
    assert key_form.read_fields(MultiDict({"models": " a*, b\r\nc "}))["models"] == ["a*", "b", "c"]


@each_row(
    ("typed", "sent"),
    [
        ("60", 60),
        (" 1,000 ", 1000),
        ("0.5", 0.5),
        ("none", None),
        ("None", None),
        ("-1", "-1"),
        ("1e9", "1e9"),
        ("x", "x"),
    ],
)
def test_numbers_are_read_and_anything_else_goes_on_as_it_is(typed: str, sent: Any) -> None:
    assert key_form.read_fields(MultiDict({"limit.concurrent": typed}))["limits"] == {
        "concurrent": sent
    }


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"disabled": True}, "disabled"),
        ({"expires": "2020-01-31"}, "expired"),
        ({"expires": None}, "active"),
    ],
)
def test_a_key_is_accepted_or_not(changes: dict[str, Any], state: str) -> None:
    assert key_form.find_state(KEY | changes) == state


def test_limits_are_listed_in_words() -> None:
    assert key_form.list_limits(KEY) == [
        "60 requests/min",
        "0.5 cost/month",
        "any number of tokens/day",
        "users by X-User",
        "each: 2 at a time",
        "priority: background",
        "weight: 2.5",
    ]
    assert key_form.list_limits(PLAIN) == []
