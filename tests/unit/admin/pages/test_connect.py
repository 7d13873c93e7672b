"""The address, the model and the token that the page Connect fills in."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from ollama_proxy.admin.pages.clients import ADDRESS, TOKEN
from ollama_proxy.admin.pages.connect import choose_model, describe, find_address
from tests.rig.tables import each_row
from tests.unit.admin.pages.test_clients import CLIENTS

APP = Flask(__name__)


def at(**environ: Any) -> Any:
    """A request whose head says this."""
    return APP.test_request_context("/admin/connect", environ_overrides=environ)


@pytest.mark.parametrize(
    ("scheme", "host", "address"),
    [
        ("http", "10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("https", "gw.example", "https://gw.example"),
        ("http", "[fe80::1]:8080", "http://[fe80::1]:8080"),
    ],
)
def test_the_address_is_the_one_of_the_request(scheme: str, host: str, address: str) -> None:
    with at(HTTP_HOST=host, **{"wsgi.url_scheme": scheme}):
        assert find_address() == address


@each_row("host", ["a b", 'x"; rm -rf ~; "', "$(id)", "a/b", ""])
def test_an_address_that_could_do_harm_in_a_shell_is_not_written_there(host: str) -> None:
    with at(HTTP_HOST=host):
        # The latter is the test client's own.
        assert find_address() in (ADDRESS, "http://localhost")


@each_row(
    ("query", "models", "chosen"),
    [
        ("", ["llama3.2:3b", "qwen3"], "llama3.2:3b"),
        ("model=qwen3:14b", ["llama3"], "qwen3:14b"),
        ("model=%22%3B+rm", ["llama3"], "llama3"),
        ("", ["our house model"], "MODEL"),
        ("", [], "MODEL"),
    ],
)
def test_the_model_is_the_one_that_is_asked_for_or_one_that_may_be_used(
    query: str, models: list[str], chosen: str
) -> None:
    with at(QUERY_STRING=query):
        assert choose_model(models) == chosen


def test_nothing_of_the_documentation_is_left_in_a_filled_in_text() -> None:
    with at():
        shown = [
            describe(client, "https://gw.example", "qwen3:14b", "op_secret") for client in CLIENTS
        ]
    texts = [text for client in shown for _, text in client["snippets"]]
    assert not [text for text in texts if ADDRESS in text or TOKEN in text]
    assert not [text for text in texts if '"demo"' in text]
