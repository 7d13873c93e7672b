"""The fields of Anthropic's messages: what each may hold."""

from __future__ import annotations

from typing import Any

from ollama_proxy.dialects.anthropic.schemas import MessagesSchema
from tests.rig.tables import each_row

SCHEMA = MessagesSchema()


@each_row(
    "fields",
    [
        {"stop_sequences": ["a"]},
        {"max_tokens": 5.0},
        {"mcp_servers": []},
        {"thinking": None},
        {"unheard_of": 1},
    ],
)
def test_harmless_values_are_accepted(fields: dict[str, Any]) -> None:
    assert SCHEMA.validate(fields) == {}


@each_row(
    "fields",
    [
        {"stop_sequences": "a"},
        {"stop_sequences": [1]},
        {"max_tokens": True},
        {"max_tokens": 5.5},
        {"mcp_servers": [{}]},
        {"thread": {}},
        {"thinking": "yes"},
    ],
)
def test_values_without_a_meaning_are_refused(fields: dict[str, Any]) -> None:
    assert SCHEMA.validate(fields).keys() == fields.keys()
