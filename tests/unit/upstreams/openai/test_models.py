"""Lists of models in the shapes that providers have for them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ollama_proxy.dialects.openai.render import render_models
from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Model
from ollama_proxy.upstreams.openai.models import decode_models


@pytest.mark.parametrize(
    "document",
    [{"data": [{"id": "m"}]}, {"models": [{"name": "m"}]}, {"data": None, "models": [{"model": "m"}]}, [{"id": "m"}]],
)
def test_shapes(document: Any) -> None:
    [model] = decode_models(document, "box")
    assert (model.name, model.owned_by, model.capabilities, model.context_length) == ("m", "box", None, None)


def test_rows_without_a_name_are_left_out() -> None:
    assert decode_models([{"id": 5}, "m", {}], "box") == []


def test_list_of_another_gateway_has_all_that_is_known() -> None:
    sent = Model("m", 7, "box", frozenset({"completion", "tools"}), 8192, embedding_length=64)
    assert decode_models(orjson.loads(render_models([sent])), "box") == [sent]


@pytest.mark.parametrize("row", [{"context_length": 8}, {"max_model_len": 8}, {"meta": {"n_ctx_train": 8}}])
def test_context(row: dict[str, Any]) -> None:
    [model] = decode_models([{"id": "m"} | row], "box")
    assert model.context_length == 8


def test_capabilities() -> None:
    row = {"supported_parameters": ["tools", "reasoning"], "architecture": {"input_modalities": ["text", "image"]}}
    [chat, vectors] = decode_models([{"id": "m"} | row, {"id": "e", "type": "embedding"}], "box")
    assert chat.capabilities == {"completion", "tools", "thinking", "vision"}
    assert vectors.capabilities == {"embedding"}


@pytest.mark.parametrize("document", [None, {}, "m", {"data": {}}])
def test_another_shape(document: Any) -> None:
    with pytest.raises(UpstreamError):
        decode_models(document, "box")
