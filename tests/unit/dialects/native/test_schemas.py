"""The envelope of native requests, and which models a request speaks of."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import Schema

from ollama_proxy.dialects.native.blueprint import MODEL_ROUTES
from ollama_proxy.dialects.native.schemas import (
    ChatEnvelope,
    CopyEnvelope,
    DeleteEnvelope,
    EmbeddingsEnvelope,
    GenerateEnvelope,
    ShowEnvelope,
    check_envelope,
    model_names,
)
from ollama_proxy.errors import BadRequest
from tests.rig.tables import each_row

NAMED = ("show", "pull", "push", "create", "delete")


@each_row(
    ("schema", "data", "text"),
    [
        (
            ChatEnvelope(),
            {"model": 5},
            "cannot unmarshal number into Go struct field ChatRequest.model of type string",
        ),
        (
            ChatEnvelope(),
            {"model": True},
            "cannot unmarshal bool into Go struct field ChatRequest.model",
        ),
        (
            ChatEnvelope(),
            {"stream": "yes"},
            "cannot unmarshal string into Go struct field ChatRequest.stream of type bool",
        ),
        (ChatEnvelope(), {"stream": 1}, "cannot unmarshal number"),
        (ChatEnvelope(), {"messages": {}}, "cannot unmarshal object"),
        (ChatEnvelope(), {"options": []}, "cannot unmarshal array"),
        (
            GenerateEnvelope(),
            {"prompt": ["a"]},
            "cannot unmarshal array into Go struct field GenerateRequest.prompt",
        ),
        (EmbeddingsEnvelope(), {"prompt": 1}, "EmbeddingRequest.prompt"),
        (ShowEnvelope(), {"name": 1}, "ShowRequest.name"),
        (CopyEnvelope(), {"source": 1}, "CopyRequest.source"),
    ],
)
def test_wrong_type_is_said_in_the_words_of_ollama(
    schema: Schema, data: dict[str, Any], text: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        check_envelope(schema, data)
    assert text in str(caught.value)
    assert caught.value.param == next(iter(data))


@each_row("route", MODEL_ROUTES)
def test_null_is_the_same_as_absent_and_unknown_fields_pass(route: Any) -> None:
    check_envelope(route.schema, dict.fromkeys(route.schema.fields))
    check_envelope(route.schema, {"brand_new": {"deep": [1]}})


@each_row(
    "route",
    [one for one in MODEL_ROUTES if one.endpoint in NAMED],
)
@each_row(
    ("data", "expected"),
    [
        ({"model": "a"}, "a"),
        ({"name": "b"}, "b"),
        ({"model": "a", "name": "b"}, "a"),
        ({"model": "", "name": "b"}, "b"),
        ({"model": None, "name": "b"}, "b"),
        ({}, ""),
    ],
)
def test_model_wins_over_name_and_an_empty_one_does_not(
    route: Any, data: dict[str, Any], expected: str
) -> None:
    """G11: a check that reads only `model` would be a way around it."""
    assert model_names(route.schema, data) == [expected]


@pytest.mark.parametrize("endpoint", ["chat", "generate", "embed", "embeddings"])
def test_inference_does_not_know_name(endpoint: str) -> None:
    [route] = [one for one in MODEL_ROUTES if one.endpoint == endpoint]
    assert model_names(route.schema, {"name": "b"}) == [""]


def test_copy_speaks_of_both_its_ends() -> None:
    assert model_names(CopyEnvelope(), {"source": "a", "destination": "b"}) == ["a", "b"]
    assert model_names(DeleteEnvelope(), {"source": "a"}) == [""]
