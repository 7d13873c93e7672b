"""A JSON Schema in the form that the Messages API accepts for an answer: closed objects, and few limits.

Limits that it refuses go into the description for the model, as in Anthropic's own client.
"""

from __future__ import annotations

import orjson

from ollama_proxy.hub import Json

#: Limits that it refuses.
_REFUSED = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems contains "
    "minContains maxContains minProperties maxProperties patternProperties propertyNames".split()
)

#: Keywords with schemas inside: in a mapping, in a list, or alone.
_MAPPINGS, _LISTS, _SINGLE = ("properties", "$defs", "definitions"), ("anyOf", "oneOf", "allOf", "prefixItems"), "items"


def close_objects(schema: Json) -> Json:
    """The schema in the accepted form; one that is accepted already stays unchanged."""
    if not isinstance(schema, dict):
        return schema
    limits = {
        name: value
        for name, value in schema.items()
        if name in _REFUSED or (name == "minItems" and value not in (0, 1))
    }
    kept = {
        "anyOf" if name == "oneOf" and "anyOf" not in schema else name: _close_inside(name, value)
        for name, value in schema.items()
        if name not in limits
    }
    if schema.get("type") == "object" or "properties" in schema:
        kept["additionalProperties"] = False
    if limits:
        said = [kept["description"]] if kept.get("description") else []
        kept["description"] = "\n\n".join([*map(str, said), orjson.dumps(limits).decode()])
    return kept


def _close_inside(name: str, value: Json) -> Json:
    if name in _MAPPINGS and isinstance(value, dict):
        return {key: close_objects(inner) for key, inner in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [close_objects(inner) for inner in value]
    return close_objects(value) if name == _SINGLE else value
