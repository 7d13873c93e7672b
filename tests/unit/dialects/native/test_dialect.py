"""Ollama's API has every request that no other dialect recognises."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.dialects.native.dialect import NATIVE


@pytest.mark.parametrize("path", ["/", "/api/chat", "/v1/messages", ""])
def test_every_request_is_recognised(path: str) -> None:
    assert NATIVE.recognises({"PATH_INFO": path})


def test_it_is_asked_last() -> None:
    assert DIALECTS[-1] is NATIVE
