"""What the requests of a worker share: replaced as a whole by new settings, and
kept if nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.dialects import find_dialect
from ollama_proxy.errors import Overloaded, TokenRevoked
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.settings import settings_from
from ollama_proxy.settings.schema import Settings
from ollama_proxy.upstreams.call import Call
from tests.rig.boxes import Box
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.in_process import TOKEN, in_process

BEFORE = 'service: {base_url: "demo:"}\nauth: {generate_tokens: [sk-one-token-0123456789]}\n'


def settings(more: str = "", base: str = BEFORE) -> Settings:
    return settings_from((base + more).encode(), Path("config.yaml"), {})


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    opened = Gateway(settings())
    yield opened
    opened.fleet.close()


def exchange(gateway: Gateway, **fields: Any) -> Exchange:
    return Exchange(
        "id",
        "POST",
        "/",
        "client",
        find_dialect({"PATH_INFO": "/"}),
        Call(gateway.settings.timeouts),
        **fields,
    )


def test_an_edit_that_is_not_about_upstreams_keeps_their_connections(gateway: Gateway) -> None:
    before = gateway.snapshot
    gateway.apply(settings("default_model: m\n"))
    after = gateway.snapshot
    assert (after.fleet, after.images) == (before.fleet, before.images)
    assert (before.settings.default_model, after.settings.default_model) == (None, "m")


def test_an_edit_of_the_upstreams_makes_another_fleet(gateway: Gateway) -> None:
    before = gateway.fleet
    gateway.apply(settings(base=BEFORE.replace("demo:", "http://127.0.0.1:9")))
    assert gateway.fleet is not before


def test_a_snapshot_that_a_request_holds_does_not_change(gateway: Gateway) -> None:
    held = gateway.snapshot
    gateway.apply(settings("models: {helper: {target: demo}}\n"))
    assert (bool(held.model_aliases), bool(gateway.snapshot.model_aliases)) == (False, True)


def test_a_new_limit_counts_the_requests_that_are_in_flight(gateway: Gateway) -> None:
    first = exchange(gateway)
    gateway.admit(first)
    gateway.apply(settings("server: {max_in_flight: 1}\n"))
    with pytest.raises(Overloaded):
        gateway.admit(exchange(gateway))
    first.finish()
    gateway.admit(exchange(gateway))


def test_an_edit_ends_what_is_answered_to_a_token_that_is_gone(gateway: Gateway) -> None:
    gone = exchange(gateway, principal=Principal("gone", SCOPES, digest=b"gone"))
    gateway.admit(gone)
    gateway.apply(settings())
    assert gone.call.ended is TokenRevoked


def test_a_model_is_resolved_once_for_the_exchange_that_is_about_it(gateway: Gateway) -> None:
    one = exchange(gateway, model="demo")
    resolve = gateway.snapshot.resolve_model
    assert resolve(one, "demo") is resolve(one, "demo") is one.resolved_model


def test_other_models_are_not_kept_on_the_exchange(gateway: Gateway) -> None:
    one = exchange(gateway)
    assert gateway.snapshot.resolve_model(one, "demo").model.name == "demo"
    assert one.resolved_model is None


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": False}


def test_a_token_for_some_models_sees_and_uses_only_those() -> None:
    with Box("one", ["qwen3:8b", "other"]) as box:
        auth = {"generate_tokens": [{"token": TOKEN, "models": ["qwen3*"]}]}
        with in_process(auth=auth, upstreams=[box.declared]) as app:
            assert [row["id"] for row in app.ask("GET", "/v1/models").json["data"]] == ["qwen3:8b"]
            assert app.ask("POST", "/api/chat", CHAT | {"model": "qwen3:8b"}).status_code == 200
            assert app.ask("POST", "/api/chat", CHAT | {"model": "other"}).status_code in (403, 404)
            assert [seen.json()["model"] for seen in box.requests if seen.path == "/api/chat"] == [
                "qwen3:8b"
            ]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_an_upstream_that_is_down_is_a_503(path: str, fault_upstream: FaultUpstream) -> None:
    fault_upstream.refuse()
    with in_process(service={"base_url": fault_upstream.url}) as app:
        answer = app.ask("POST", path, CHAT)
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers


def test_the_model_decides_the_upstream() -> None:
    with Box("one", ["a"]) as one, Box("two", ["b"]) as two:
        with in_process(upstreams=[one.declared, two.declared]) as app:
            assert app.ask("POST", "/v1/chat/completions", CHAT | {"model": "b"}).status_code == 200
            assert app.ask("POST", "/v1/chat/completions", CHAT | {"model": "c"}).status_code == 404
        assert [seen.path for seen in one.requests if seen.method == "POST"] == []
        assert [seen.path for seen in two.requests if seen.method == "POST"] == ["/api/chat"]
