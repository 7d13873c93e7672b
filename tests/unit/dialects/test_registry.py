"""The dialects that are registered, as requests meet them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.in_process import InProcess


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/api/nothing", ["error"]),
        ("/nothing", ["error"]),
        ("/v1/nothing", ["error"]),
        ("/v1/messages/nothing", ["error", "request_id", "type"]),
        ("/anthropic/nothing", ["error", "request_id", "type"]),
    ],
)
def test_an_unknown_address_gets_an_error_of_its_dialect(demo_app: InProcess, path: str, shape: list[str]) -> None:
    answer = demo_app.ask("GET", path)
    assert (answer.status_code, sorted(answer.json)) == (404, shape)
    assert isinstance(answer.json["error"], dict) == path.startswith(("/v1", "/anthropic"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/embeddings", {"input": "hi"}),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_every_dialect_has_its_routes(demo_app: InProcess, path: str, body: dict[str, Any]) -> None:
    assert demo_app.ask("POST", path, {"model": "demo", **body}).status_code == 200
