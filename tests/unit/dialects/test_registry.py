"""The dialects that are registered: to which one a request belongs, and what it meets there."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects import find_dialect
from tests.rig.in_process import InProcess


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/nothing", "openai"),
        ("/v1/", "openai"),
        ("/v1", "openai"),
        ("/v10/x", "native"),
        ("/V1/models", "native"),
        ("/api/chat", "native"),
        ("/", "native"),
        ("/nothing", "native"),
        ("/v1/responses", "openai"),
        ("/v1/models/m", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/messagesx", "openai"),
        ("/v1/x/messages", "openai"),
        ("/anthropic", "anthropic"),
        ("/anthropic/v1/messages", "anthropic"),
        ("/anthropic/nothing", "anthropic"),
        ("/anthropicx", "native"),
        ("/api/anthropic/x", "native"),
    ],
)
def test_a_path_promises_the_error_shapes_of_its_dialect(path: str, dialect: str) -> None:
    assert find_dialect({"PATH_INFO": path}).name == dialect


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/models", "anthropic"),
        ("/v1/models/", "anthropic"),
        ("/v1/models/ns/m:tag", "anthropic"),
        ("/v1/messages", "anthropic"),
        ("/v1/modelsx", "openai"),
        ("/v1/chat/completions", "openai"),
        ("/api/tags", "native"),
    ],
)
@pytest.mark.parametrize("version", ["2023-06-01", ""])
def test_models_are_anthropics_for_who_says_its_version(path: str, dialect: str, version: str) -> None:
    assert find_dialect({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": version}).name == dialect


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
