"""What several routes of the admin API answer, and the parameters and bodies that they take."""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import Any

from marshmallow import RAISE, Schema, fields
from marshmallow.validate import Length, Range

#: Longest text of a parameter, in characters.
MAX_CHARS = 512


class Answer(Schema):
    """Fields of an answer are there in every answer; those that may be unknown are null."""

    class Meta:
        unknown = RAISE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Nothing is optional."""
        field_obj.required = True


def text(description: str, **options: Any) -> fields.String:
    """A bounded text of a parameter or body."""
    return fields.String(
        validate=Length(max=MAX_CHARS), metadata={"description": description}, **options
    )


def time(**options: Any) -> fields.String:
    """A time of an answer, in ISO 8601."""
    return fields.String(metadata={"format": "date-time"}, **options)


def declared(title: str, declaration: Any, /, **others: fields.Field[Any]) -> type[Schema]:
    """The fields that a setting has in the file, each with its description. Their values are
    checked by the types of the settings, as those of the file are."""
    known: dict[str, fields.Field[Any]] = dict(others)
    for each in fields_of(declaration):
        if "kind" in each.metadata:
            about = f"{each.metadata['text']} ({each.metadata['kind'].label})"
            names = filter(None, (each.name, each.metadata.get("alias")))
            known |= {
                name: fields.Raw(allow_none=True, metadata={"description": about}) for name in names
            }
    return Schema.from_dict(known, name=title)


class PageQuery(Schema):
    """Which part of a list."""

    limit = fields.Integer(load_default=100, validate=Range(1, 1000))
    cursor = text("That of the page before; absent: from the beginning.")


class Sums(Answer):
    """What was used."""

    requests = fields.Integer()
    errors = fields.Integer()
    prompt_tokens = fields.Integer()
    cached_tokens = fields.Integer()
    completion_tokens = fields.Integer()
    gpu_seconds = fields.Float()
    cost = fields.Float(metadata={"description": "In records.currency."})
