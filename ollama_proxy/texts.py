"""Texts for people that can be shown in another language than the one of the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Translatable(str):
    """A text in English, as APIs and logs have it, that the admin pages translate. Its message is a
    literal, which `make translations` adds to the catalogue of the pages."""

    __slots__ = ("message", "values")

    #: The text with placeholders such as `%(name)s`, and what stands for them: texts, of which each
    #: may be translatable again, and numbers.
    message: str
    values: Mapping[str, Any]

    def __new__(cls, message: str, /, **values: Any) -> Translatable:
        text = super().__new__(cls, message % values if values else message)
        text.message, text.values = message, values
        return text


def text_to_json(text: str) -> Any:
    """How a text is sent to another process, which may translate it: a string, or an object
    if it is Translatable."""
    if not isinstance(text, Translatable):
        return text
    values = {
        name: text_to_json(each) if isinstance(each, str) else each
        for name, each in text.values.items()
    }
    return {"message": text.message, "values": values}


def text_from_json(document: Any) -> str:
    """The text that `text_to_json` has sent."""
    if isinstance(document, str):
        return document
    message, values = document["message"], document["values"]
    read = {
        name: text_from_json(each) if isinstance(each, dict) else each
        for name, each in values.items()
    }
    return Translatable(message, **read)
