"""The fields of OpenAI's responses: what each may hold."""

from __future__ import annotations

from typing import Any

from ollama_proxy.dialects.responses.schemas import INCLUDABLE, ResponseSchema
from tests.rig.tables import each_row

SCHEMA = ResponseSchema()


@each_row(
    "fields",
    [
        {"include": list(INCLUDABLE)},
        {"truncation": "auto"},
        {"background": False},
        {"metadata": {"a": "b"}},
        {"text": {"format": {}}},
        {"previous_response_id": None},
    ],
)
def test_values_that_are_accepted(fields: dict[str, Any]) -> None:
    assert SCHEMA.validate(fields) == {}


@each_row(
    "fields",
    [
        {"include": ["everything"]},
        {"truncation": "sometimes"},
        {"background": True},
        {"metadata": {"a": 1}},
        {"text": "json"},
        {"previous_response_id": "resp_1"},
        {"conversation": "c"},
    ],
)
def test_values_that_are_refused(fields: dict[str, Any]) -> None:
    assert SCHEMA.validate(fields).keys() == fields.keys()
