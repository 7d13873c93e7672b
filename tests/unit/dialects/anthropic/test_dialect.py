"""Which requests belong to this dialect."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.anthropic.dialect import ANTHROPIC


@pytest.mark.parametrize(
    ("path", "is_its"),
    [
        ("/v1/messages", True),
        ("/v1/v1/messages/count_tokens", True),
        ("/anthropic/nothing", True),
        ("/messages", True),
        ("/messages/count_tokens", True),
        ("/v1/messagesx", False),
        ("/messagesx", False),
        ("/v1/models", False),
        ("/api/tags", False),
    ],
)
def test_requests_are_recognised_by_their_path(path: str, is_its: bool) -> None:
    assert ANTHROPIC.recognises({"PATH_INFO": path}) is is_its


@pytest.mark.parametrize(
    ("path", "is_shared"), [("/v1/models/m", True), ("/v1/files", True), ("/v1/embeddings", False)]
)
def test_shared_addresses_need_the_version_header(path: str, is_shared: bool) -> None:
    assert ANTHROPIC.recognises({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": "2023-06-01"}) is is_shared


def test_pages_may_read_its_headers() -> None:
    assert ANTHROPIC.exposed_headers == ("request-id", "anthropic-version")
