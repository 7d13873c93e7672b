"""Which requests are Anthropic's, also with a slightly wrong base URL."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.anthropic.dialect import ANTHROPIC


@pytest.mark.parametrize(
    ("path", "is_own"),
    [
        ("/v1/messages", True),
        ("/v1/v1/messages", True),
        ("/anthropic/anything", True),
        ("/v1/models", False),
        ("/messages", False),
    ],
)
def test_paths(path: str, is_own: bool) -> None:
    assert ANTHROPIC.recognises({"PATH_INFO": path}) is is_own


@pytest.mark.parametrize(("path", "is_own"), [("/v1/models", True), ("/v1/files/x", True), ("/v1/responses", False)])
def test_the_version_header_decides_on_shared_paths(path: str, is_own: bool) -> None:
    assert ANTHROPIC.recognises({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": ""}) is is_own


def test_pages_may_read_the_headers_that_its_clients_read() -> None:
    sent = dict(ANTHROPIC.errors.head_fields("id-1", {}))
    assert set(ANTHROPIC.exposed_headers) == set(sent)
