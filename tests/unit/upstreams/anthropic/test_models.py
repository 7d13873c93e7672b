"""Rows of a list of models, and what they tell of a model."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.upstreams.anthropic.models import (
    UNKNOWN,
    Traits,
    decode_model,
    decode_page,
    decode_traits,
    find_traits,
)

YES = {"supported": True}
ROW: dict[str, Any] = {
    "id": "claude-9",
    "created_at": "2026-01-01T00:00:00Z",
    "max_input_tokens": 200_000,
    "max_tokens": 64_000,
    "capabilities": {
        "image_input": YES,
        "thinking": YES | {"types": {"adaptive": YES, "enabled": {"supported": False}}},
        "effort": {"high": YES},
        "structured_outputs": YES,
    },
}


def test_a_row_with_everything() -> None:
    model, traits = decode_model(ROW, "box"), decode_traits(ROW)
    assert (model.name, model.modified_at, model.owned_by, model.context_length) == (
        "claude-9",
        1767225600,
        "box",
        200_000,
    )
    assert model.capabilities == {"completion", "tools", "vision", "thinking"}
    assert (traits.most_tokens, traits.lists_thinking, traits.efforts, traits.has_schemas) == (
        64_000,
        True,
        {"high"},
        True,
    )
    assert (traits.is_adaptive, traits.decides_sampling, traits.can_stop_thinking) == (
        True,
        True,
        False,
    )


def test_a_row_that_tells_nothing() -> None:
    assert decode_traits({"id": "m"}) == UNKNOWN
    assert (UNKNOWN.is_adaptive, UNKNOWN.decides_sampling, UNKNOWN.can_stop_thinking) == (
        False,
        False,
        True,
    )


def test_pages() -> None:
    retired = {"id": "old", "lifecycle": "retired"}
    page = {"data": [ROW, retired], "last_id": "old", "has_more": True}
    assert decode_page(page) == ([ROW], "old")
    assert decode_page(page | {"has_more": False}) == ([ROW], None)


@pytest.mark.parametrize("page", [{}, {"data": {}}, {"data": ["m"]}, {"data": [{"id": 5}]}])
def test_another_shape(page: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError):
        decode_page(page)


def test_a_name_without_its_date() -> None:
    told = {"claude-9-20260101": Traits(most_tokens=1)}
    assert (
        find_traits("claude-9-20260101", told)
        == find_traits("claude-9", told)
        == Traits(most_tokens=1)
    )
    assert find_traits("claude", told) == UNKNOWN
