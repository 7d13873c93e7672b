"""Which requests belong to this dialect."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.dialects.native.dialect import NATIVE


@pytest.mark.parametrize(
    ("path", "is_its"),
    [
        ("/api/chat", True),
        ("/", True),
        ("/nothing", True),
    ],
)
def test_requests_are_recognised_by_their_path(path: str, is_its: bool) -> None:
    assert NATIVE.recognises({"PATH_INFO": path}) is is_its


def test_pages_may_call_its_routes_only() -> None:
    assert NATIVE.cors_paths == ("/api/",)
    assert NATIVE.models is None


def test_it_is_asked_last() -> None:
    assert DIALECTS[-1] is NATIVE
