"""To which dialect a request belongs."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects import find_dialect


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
