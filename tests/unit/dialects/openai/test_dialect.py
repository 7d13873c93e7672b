"""Which requests are OpenAI's, also with a slightly wrong base URL."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.openai.dialect import OPENAI


@pytest.mark.parametrize(
    ("path", "is_own"),
    [
        ("/v1/chat/completions", True),
        ("/v1/v1/chat/completions", True),
        ("/chat/completions", True),
        ("/responses", True),
        ("/chat/completions/x", False),
        ("/v10", False),
        ("/api/chat", False),
    ],
)
def test_paths(path: str, is_own: bool) -> None:
    assert OPENAI.recognises({"PATH_INFO": path}) is is_own
