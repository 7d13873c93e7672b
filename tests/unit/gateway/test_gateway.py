"""One admitted call from the route to its answer, and what the gateway knows of it meanwhile."""

from __future__ import annotations

import pytest

from tests.rig.boxes import Box
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.in_process import TOKEN, in_process

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": False}


def test_a_token_for_some_models_sees_and_uses_only_those() -> None:
    with Box("one", ["qwen3:8b", "other"]) as box:
        auth = {"generate_tokens": [{"token": TOKEN, "models": ["qwen3*"]}]}
        with in_process(auth=auth, upstreams=[box.declared]) as app:
            assert [row["id"] for row in app.ask("GET", "/v1/models").json["data"]] == ["qwen3:8b"]
            assert app.ask("POST", "/api/chat", CHAT | {"model": "qwen3:8b"}).status_code == 200
            assert app.ask("POST", "/api/chat", CHAT | {"model": "other"}).status_code in (403, 404)
            assert [seen.json()["model"] for seen in box.requests if seen.path == "/api/chat"] == ["qwen3:8b"]


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
