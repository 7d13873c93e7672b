"""A JSON Schema as the Messages API takes it for the form of an answer: closed objects, and few limits.

What it refuses is told to the model in the description, as Anthropic's own client does.
"""

from __future__ import annotations

import orjson

from ollama_proxy.hub import Json

#: Limits that it refuses.
_REFUSED = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems contains "
    "minContains maxContains minProperties maxProperties patternProperties propertyNames".split()
)

#: Where a schema has others inside: in a mapping, in a list, or alone.
_MAPPINGS, _LISTS, _SINGLE = ("properties", "$defs", "definitions"), ("anyOf", "oneOf", "allOf", "prefixItems"), "items"


def closed(schema: Json) -> Json:
    """The same schema as far as it can be asked for; one that can be is not changed."""
    if not isinstance(schema, dict):
        return schema
    limits = {name: schema[name] for name in _REFUSED & schema.keys()}
    if schema.get("minItems", 0) not in (0, 1):
        limits["minItems"] = schema["minItems"]
    kept = {name: _close_inside(name, value) for name, value in schema.items() if name not in limits}
    if "oneOf" in kept and "anyOf" not in kept:
        kept["anyOf"] = kept.pop("oneOf")
    if schema.get("type") == "object" or "properties" in schema:
        kept["additionalProperties"] = False
    if limits:
        said = [kept["description"]] if kept.get("description") else []
        kept["description"] = "\n\n".join([*map(str, said), orjson.dumps(limits).decode()])
    return kept


def _close_inside(name: str, value: Json) -> Json:
    if name in _MAPPINGS and isinstance(value, dict):
        return {key: closed(inner) for key, inner in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [closed(inner) for inner in value]
    return closed(value) if name == _SINGLE else value
