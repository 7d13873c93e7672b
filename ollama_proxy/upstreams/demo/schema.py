"""One value that matches a JSON Schema: the demo's answer to a request with a schema, and arguments
of tools. The schema of an answer may be in the prompt."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote

import orjson

from ollama_proxy.hub import Json

#: How far an example of a schema goes: levels, values in all, and levels on which optional
#: properties are shown.
MAX_DEPTH = 16
MAX_VALUES = 1000
MAX_OPTIONAL_DEPTH = 4

#: How much of a prompt is searched for a schema: characters, and lines that begin an object.
MAX_SEARCHED, MAX_OBJECTS = 65536, 32

#: Where a JSON object may begin: on a line of its own.
_OBJECT = re.compile(r"^[ \t]*(?=\{)", re.MULTILINE)

#: Notes on the type of a placeholder in a prompt, and their schemas.
_PLACEHOLDER_TYPES = {"True or False": "boolean", "int value": "integer", "float value": "number"}

_CONSTANTS = {"null": None, "boolean": True}

#: Strings that a reader of the schema could not parse if they were "demo".
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
}


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def find_schema(prompt: str) -> Mapping[str, Json] | None:
    """The schema that a prompt describes the answer with, for clients that ask for JSON without a
    schema: the first JSON Schema in it, or the first object of placeholders such as `"{answer}"`,
    which may have notes on their types."""
    prompt = prompt[:MAX_SEARCHED]
    for match in islice(_OBJECT.finditer(prompt), MAX_OBJECTS):
        try:
            _, end = json.JSONDecoder().raw_decode(prompt, match.end())
            found: dict[str, Json] = orjson.loads(prompt[match.end() : end])
        except (ValueError, RecursionError):
            continue
        if isinstance(found.get("properties"), dict) or "$ref" in found:
            return found
        if found and all(
            isinstance(value, str) and value.startswith("{") for value in found.values()
        ):
            properties = {name: _read_placeholder(value) for name, value in found.items()}
            return {"properties": properties, "required": [*properties]}
    return None


def _read_placeholder(text: str) -> Mapping[str, Json]:
    """The schema of a placeholder: that of its note, or a string."""
    if schema := text.partition("JSON schema: ")[2]:
        with contextlib.suppress(orjson.JSONDecodeError):
            return _mapping(orjson.loads(schema))
    if words := text.partition("one of: ")[2]:
        return {"enum": words.split("; ")}
    return {
        "type": next((kind for note, kind in _PLACEHOLDER_TYPES.items() if note in text), "string")
    }


@dataclass(slots=True)
class Example:
    """One value that matches a JSON Schema: its first choices and its required properties,
    in the order declared."""

    _root: Mapping[str, Json]
    #: Leave out optional properties even if nothing is required.
    only_required: bool = False
    #: A schema of a few references can describe more values than fit into memory.
    _left: int = MAX_VALUES

    def value(self) -> Json:
        return self._of(self._root, 0)

    def object(self) -> dict[str, Json]:
        """The value of a schema that describes an object, with or without a type."""
        return self._object(self._flat(self._root, 0), 0)

    def _of(self, schema: Json, depth: int) -> Json:
        schema = self._flat(schema, depth)
        if depth > MAX_DEPTH or self._left < 0:
            return None
        if "const" in schema:
            return schema["const"]
        if enum := _list(schema.get("enum")):
            return enum[0]
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                first = [
                    self._of(item, depth + 1)
                    for item in _list(schema.get("prefixItems"))[:MAX_VALUES]
                ]
                least = min(_size(schema, "minItems", 0), MAX_DEPTH)
                return first + [
                    self._of(schema.get("items"), depth + 1) for _ in range(least - len(first))
                ]
            case kind:
                return _scalar(kind, schema)

    def _flat(self, schema: Json, depth: int) -> Mapping[str, Json]:
        """`schema` with its references followed and one of its alternatives taken."""
        flat = _mapping(schema)
        for _ in range(MAX_DEPTH):
            self._left -= 1
            if self._left < 0:
                break
            rest = {
                key: value
                for key, value in flat.items()
                if key not in ("$ref", "anyOf", "oneOf", "allOf")
            }
            if "$ref" in flat:
                flat = _merged(rest, self._target(flat["$ref"]))
            elif options := _list(flat.get("anyOf")) or _list(flat.get("oneOf")):
                flat = _merged(rest, _mapping(_alternative(options, depth)))
            elif parts := _list(flat.get("allOf")):
                flat = rest
                for part in parts[:MAX_DEPTH] if depth + 1 < MAX_DEPTH else ():
                    flat = _merged(flat, self._flat(part, depth + 1))
            else:
                break
        return flat

    def _target(self, reference: Json) -> Mapping[str, Json]:
        """The target of a reference inside this schema (RFC 6901); nothing for any other."""
        path = unquote(str(reference))
        target: Json = self._root if path.startswith("#") else {}
        for part in path[2:].split("/") if len(path) > 1 else ():
            target = _mapping(target).get(part.replace("~1", "/").replace("~0", "~"))
        return _mapping(target)

    def _object(self, schema: Mapping[str, Json], depth: int) -> dict[str, Json]:
        properties = _mapping(schema.get("properties"))
        required = dict.fromkeys(
            name for name in _list(schema.get("required")) if isinstance(name, str)
        )
        # Deeper down the optional ones are left out, which ends a schema that contains itself.
        everything = not required and not self.only_required and depth < MAX_OPTIONAL_DEPTH
        names = [name for name in properties if everything or name in required]
        names += [name for name in required if name not in properties]
        return {name: self._of(properties.get(name), depth + 1) for name in names[:MAX_VALUES]}


def _merged(schema: Mapping[str, Json], other: Mapping[str, Json]) -> dict[str, Json]:
    both = {**schema, **other}
    if "properties" in schema and "properties" in other:
        both["properties"] = {**_mapping(schema["properties"]), **_mapping(other["properties"])}
    if "required" in schema and "required" in other:
        both["required"] = [*_list(schema["required"]), *_list(other["required"])]
    return both


def _alternative(options: Sequence[Json], depth: int) -> Json:
    """The first; deep down the first that can't lead back into the schema."""
    closed = [
        option
        for option in options
        if depth >= MAX_OPTIONAL_DEPTH and "$ref" not in _mapping(option)
    ]
    return closed[0] if closed else options[0]


def _kind(schema: Mapping[str, Json]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _scalar(kind: str, schema: Mapping[str, Json]) -> Json:
    if kind in _CONSTANTS:
        return _CONSTANTS[kind]
    if kind in ("number", "integer"):
        low, high = schema.get("minimum"), schema.get("maximum")
        if isinstance(low, int | float) and low > 1:
            return low
        return high if isinstance(high, int | float) and high < 1 else 1
    text = _FORMATS.get(str(schema.get("format")), "demo")
    least = min(_size(schema, "minLength", 0), MAX_VALUES)
    longer = text if len(text) >= least else (text * least)[:least]
    return longer[: _size(schema, "maxLength", len(longer))]


def _size(schema: Mapping[str, Json], name: str, default: int) -> int:
    value = schema.get(name)
    return value if isinstance(value, int) and value >= 0 else default
