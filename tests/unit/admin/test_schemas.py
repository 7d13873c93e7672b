"""What several routes answer and take."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from marshmallow import ValidationError, fields

from ollama_proxy.admin.schemas import Answer, Sums, declared, text
from ollama_proxy.settings import KeyFields, ModelSettings


def test_answers_have_every_field_and_no_other() -> None:
    class Thing(Answer):
        name = fields.String()

    assert all(field.required for field in Sums().fields.values())
    assert Thing().dump({"name": "a", "digest": "b"}) == {"name": "a"}


def test_bodies_have_the_fields_of_the_declarations_and_their_aliases() -> None:
    schema = declared("Model", ModelSettings)()
    assert {"target", "clamp", "request_timeout", "timeout_ms"} <= schema.fields.keys()
    assert (
        schema.fields["target"].metadata["description"].startswith("Model that the name stands for")
    )
    key = declared("Key", KeyFields, name=text("Its name.", required=True))()
    assert key.fields["name"].required and not key.fields["limits"].required


def test_texts_are_bounded_and_other_fields_unknown() -> None:
    @dataclass
    class Nothing:
        """No settings."""

    schema = declared("Nothing", Nothing, name=text("Its name."))()
    assert schema.load({"name": "x" * 512})
    for given in ({"name": "x" * 513}, {"other": 1}):
        with pytest.raises(ValidationError):
            schema.load(given)
