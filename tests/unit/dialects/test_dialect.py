"""A dialect and its routes."""

from __future__ import annotations

from flask import Blueprint

from ollama_proxy.dialects.dialect import Routes
from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.dialects.openai.blueprint import OPENAI
from ollama_proxy.gateway import current_exchange
from tests.rig.in_process import in_process

MORE = Routes(lambda gateway: Blueprint("more", __name__), {"more.one": "read"})


def test_further_routes_are_added_to_a_copy() -> None:
    before = OPENAI.routes
    both = OPENAI.with_routes(MORE)
    assert both.routes == (*before, MORE)
    assert (OPENAI.routes, both.name, both.errors) == (before, OPENAI.name, OPENAI.errors)


def test_the_dialect_of_a_request_is_known_while_it_is_handled() -> None:
    seen = []
    with in_process() as app:
        app.app.after_request(
            lambda response: seen.append(current_exchange().dialect.name) or response
        )
        for path in ("/api/tags", "/v1/models", "/anthropic/v1/nothing"):
            app.ask("GET", path)
    assert seen == [NATIVE.name, OPENAI.name, "anthropic"]
