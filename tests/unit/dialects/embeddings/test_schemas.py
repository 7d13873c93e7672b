"""Requests for OpenAI's embeddings."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.embeddings.schemas import load_embeddings, load_encoding
from ollama_proxy.errors import BadRequest


def test_one_text_and_several() -> None:
    assert load_embeddings({"model": "m", "input": ""}).input == [""]
    request = load_embeddings({"model": "m", "input": ["a", "b"], "dimensions": 8.0, "novelty": 1})
    assert (request.input, request.dimensions, request.passthrough_fields) == (["a", "b"], 8, {"novelty": 1})


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": [1, 2]}, "input"),
        ({"model": "m", "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": "m", "input": "a", "dimensions": "8"}, "dimensions"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_embeddings(data)
    assert raised.value.param == param


def test_encodings() -> None:
    assert [load_encoding(data) for data in ({}, {"encoding_format": "BASE64"})] == ["float", "base64"]
    with pytest.raises(BadRequest, match="encoding_format"):
        load_encoding({"encoding_format": "hex"})
