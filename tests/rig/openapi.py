"""The OpenAPI document of the admin API: answers are checked against it."""

from __future__ import annotations

import re
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

BASE = "urn:document"


class Document:
    """A document, and the routes of it that answers were checked against."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.checked: set[tuple[str, str]] = set()
        self._registry: Registry[Any] = Registry().with_resource(
            BASE, Resource(contents=document, specification=DRAFT202012)
        )

    def operations(self) -> set[tuple[str, str]]:
        """Every method and path template."""
        methods = ("get", "put", "post", "patch", "delete")
        return {
            (m.upper(), path)
            for path, item in self.document["paths"].items()
            for m in item
            if m in methods
        }

    def check(self, method: str, path: str, status: int, body: Any) -> None:
        """Raises if an answer is not one that the document promises; `body` None: there is none."""
        template = self._find(method, path.partition("?")[0])
        self.checked.add((method, template))
        responses = self.document["paths"][template][method.lower()]["responses"]
        place = [
            "paths",
            template,
            method.lower(),
            "responses",
            str(status) if str(status) in responses else "default",
        ]
        assert status >= 400 or str(status) in responses, (
            f"{method} {template} promises no {status}"
        )
        content = self._resolve(responses[place[-1]]).get("content")
        assert (content is None) == (body is None), (
            f"{method} {template} {status}: {content} and {body}"
        )
        if content is not None:
            schema = _absolute(content["application/json"]["schema"])
            Draft202012Validator(
                schema, registry=self._registry, format_checker=FormatChecker()
            ).validate(body)

    def _resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return node
        found: Any = self.document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return self._resolve(found)

    def _find(self, method: str, path: str) -> str:
        """The template that matches a path, the most literal one first."""
        for found, template in sorted(self.operations(), key=lambda each: each[1].count("{")):
            pattern = re.sub(r"\\\{(\w+)\\\}", ".+", re.escape(template))
            if found == method and re.fullmatch(pattern, path):
                return template
        raise AssertionError(f"the document has no {method} {path}")


def _absolute(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: f"{BASE}{value}" if key == "$ref" else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(each) for each in schema] if isinstance(schema, list) else schema
