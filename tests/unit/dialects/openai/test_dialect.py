"""Which requests belong to this dialect."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.openai.dialect import OPENAI


@pytest.mark.parametrize(
    ("path", "is_its"),
    [
        ("/v1/chat/completions", True),
        ("/v1/nothing", True),
        ("/v1/v1/models", True),
        ("/chat/completions", True),
        ("/models", True),
        ("/chat/completions/x", False),
        ("/v10/models", False),
        ("/api/tags", False),
    ],
)
def test_requests_are_recognised_by_their_path(path: str, is_its: bool) -> None:
    assert OPENAI.recognises({"PATH_INFO": path}) is is_its
