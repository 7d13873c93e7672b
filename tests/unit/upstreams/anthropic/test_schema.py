"""JSON Schemas as the Messages API takes them."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.upstreams.anthropic.schema import close_objects


@pytest.mark.parametrize(
    "schema", [{"type": "string"}, {"type": "array", "items": {"type": "integer"}, "minItems": 1}, True]
)
def test_what_can_be_asked_for_is_not_changed(schema: Any) -> None:
    assert close_objects(schema) == schema


def test_objects_are_closed_at_every_depth() -> None:
    inner = {"type": "object", "properties": {}}
    done = close_objects({"type": "object", "properties": {"a": inner, "b": {"anyOf": [inner]}}, "$defs": {"c": inner}})
    assert done["additionalProperties"] is False
    for each in (done["properties"]["a"], done["properties"]["b"]["anyOf"][0], done["$defs"]["c"]):
        assert each["additionalProperties"] is False


def test_limits_are_told_in_the_description() -> None:
    done = close_objects({"type": "string", "minLength": 2, "description": "A name."})
    assert done == {"type": "string", "description": 'A name.\n\n{"minLength":2}'}


def test_one_of_is_any_of() -> None:
    assert close_objects({"oneOf": [{"type": "string"}]}) == {"anyOf": [{"type": "string"}]}
    assert close_objects({"oneOf": [], "anyOf": []}) == {"oneOf": [], "anyOf": []}
