"""What a dialect consists of."""

from __future__ import annotations

from typing import Any, cast

from flask import Flask

from ollama_proxy.dialects.dialect import Routes, current_dialect
from ollama_proxy.dialects.native.dialect import NATIVE
from ollama_proxy.gateway import EXCHANGE_KEY


def test_further_routes_come_behind_its_own_and_leave_the_original_as_it_is() -> None:
    more = Routes(cast(Any, None), {})
    assert NATIVE.with_routes(more).routes == (*NATIVE.routes, more)
    assert more not in NATIVE.routes


def test_the_current_dialect_is_that_of_the_exchange() -> None:
    exchange = type("HasDialect", (), {"dialect": NATIVE})()
    with Flask("app").test_request_context("/", environ_overrides={EXCHANGE_KEY: exchange}):
        assert current_dialect() is NATIVE
