"""Texts that the API writes in English, and the pages in the language of their reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Returns a text in some language, with the values that are its named arguments.
Translate = Callable[..., str]


def N_(text: str) -> str:  # the name that gettext's tools know
    """The text itself, marked for translation: it is translated where it is shown, not here."""
    return text


def fill_in(text: str, values: Mapping[str, Any]) -> str:
    """The text with its values; without any, templates fill them in themselves."""
    return text % values if values else text


def english(text: str, /, **values: Any) -> str:
    """The text as it is written, with its values filled in."""
    return fill_in(text, values)
