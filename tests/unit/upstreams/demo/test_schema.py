"""Examples of JSON Schemas: they fit, keep the declared order, and end whatever the schema says."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest

from ollama_proxy.upstreams.demo.schema import Example, find_schema
from tests.rig.tables import each_row

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "number"},
        "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
    },
    "required": ["value", "next"],
}


@each_row(
    ("schema", "expected"),
    [
        ({"type": "string"}, "demo"),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "prefixItems": [{"const": "a"}, {"type": "boolean"}]}, ["a", True]),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": {"k": [1]}}, {"k": [1]}),
        ({"type": "string", "minLength": 6}, "demode"),
        ({"type": "string", "maxLength": 2}, "de"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 1),
        (
            {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}},
            {"b": "demo", "a": 1},
        ),
        (
            {"properties": {"b": {}, "a": {"type": "integer"}}, "required": ["a", "x"]},
            {"a": 1, "x": "demo"},
        ),
        ({"$ref": "#/$defs/My~1Kind", "$defs": {"My/Kind": {"enum": [7]}}}, 7),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}, "b": {}}}]}, {"a": 1}),
        (
            {
                "type": "object",
                "properties": {"a": {"const": 5}},
                "anyOf": [{"required": ["a"]}, {}],
            },
            {"a": 5},
        ),
    ],
)
def test_the_example_fits_the_schema(schema: dict[str, Any], expected: Any) -> None:
    value = Example(schema).value()
    assert json.dumps(value) == json.dumps(expected)
    jsonschema.validate(value, schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}},
        {
            "type": "object",
            "properties": {
                "self": {"$ref": "#"},
                "many": {"type": "array", "items": {"$ref": "#"}},
            },
        },
    ],
)
def test_a_schema_that_contains_itself_comes_to_an_end_that_fits(schema: dict[str, Any]) -> None:
    jsonschema.validate(Example(schema).value(), schema)


def test_optional_properties_can_be_left_out_everywhere() -> None:
    schema = {
        "properties": {"a": {"type": "string"}, "b": {"properties": {"c": {}}}},
        "required": ["b"],
    }
    assert Example(schema, only_required=True).object() == {"b": {}}


def doubling(levels: int) -> dict[str, Any]:
    defs = {
        f"d{level}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/d{level + 1}"} for side in "ab"},
            "required": ["a", "b"],
        }
        for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": defs}


@each_row(
    "schema",
    [
        doubling(40),
        {"allOf": [{"$ref": "#"}] * 20},
        {"$ref": "#"},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"properties": [], "required": {}, "type": 3, "anyOf": {}, "enum": {}},
    ],
)
def test_a_hostile_schema_costs_little(schema: dict[str, Any]) -> None:
    started = time.process_time()
    value = Example(schema).value()
    assert len(json.dumps(value)) < 100_000 and time.process_time() - started < 5.0


PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
}
INDENTED = json.dumps(PERSON, indent=2)
#: The shape in which DSPy describes the fields of an answer.
PLACEHOLDERS = {
    "answer": "{answer}",
    "sure": "{sure}        # note: the value you produce must be True or False",
    "count": "{count}        # note: the value you produce must be a single int value",
    "share": "{share}        # note: the value you produce must be a single float value",
    "mood": (
        "{mood}        # note: the value you produce must exactly match (no extra "
        "characters) one of: calm; wild"
    ),
    "who": (
        f"{{who}}        # note: the value you produce must adhere to the JSON schema: {json.dumps(PERSON)}"
    ),
}


@each_row(
    ("prompt", "example"),
    [
        (
            f"Answer by this schema:\n\n        {INDENTED}\n\nNot the schema itself.",
            {"name": "demo"},
        ),
        (f'Values like\n{{question}}\n{{"a": 1}}\n{INDENTED}', {"name": "demo"}),
        (
            "[[ ## question ## ]]\n{question}\n\nA JSON object with these "
            f"fields.\n\n{json.dumps(PLACEHOLDERS)}",
            {
                "answer": "demo",
                "sure": True,
                "count": 1,
                "share": 1,
                "mood": "calm",
                "who": {"name": "demo"},
            },
        ),
        ('{"a": "{a} by the JSON schema: {"}', {"a": "demo"}),
        ("Hi, {this} is JSON: {}", None),
        (r'{"properties": {"\ud800": {}}}', None),
        ("{" * 5000, None),
        ('{"a":' * 5000, None),
        ("\n{" * 100 + INDENTED, None),
    ],
)
def test_schema_in_a_prompt_is_found(prompt: str, example: Any) -> None:
    schema = find_schema(prompt)
    assert (schema and Example(schema).value()) == example
