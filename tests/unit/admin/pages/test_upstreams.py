"""The form of an upstream. The pages themselves: test_pages_models.py."""

from __future__ import annotations

from ollama_proxy.admin.pages.upstreams import PAGE, merge_form
from ollama_proxy.policy import ADMIN
from ollama_proxy.settings import read_upstream


def test_what_the_form_has_no_fields_for_stays() -> None:
    before = {
        "kind": "ollama",
        "base_url": "http://a:1",
        "drain": True,
        "timeouts": {"total_s": 9},
        "weight": 3,
    }
    form = {
        "kind": "ollama",
        "base_url": " http://b:2 ",
        "concurrency": "4",
        "weight": "",
        "colour": "red",
    }
    value = merge_form(form, before)
    assert value == {
        "kind": "ollama",
        "base_url": "http://b:2",
        "concurrency": 4,
        "drain": True,
        "timeouts": {"total_s": 9},
    }
    assert read_upstream("box1", value).concurrency == 4


def test_all_of_it_is_for_administrators() -> None:
    assert set(PAGE.scopes.values()) == {ADMIN}
