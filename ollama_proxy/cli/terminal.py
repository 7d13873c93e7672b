"""Text for a terminal: without characters that control it, and in columns that are
aligned in every script."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

#: For what has no value.
NOTHING = "-"


def show_text(text: str) -> str:
    """A text without characters that control the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def align(cells: Sequence[str], *, to_right: bool = False) -> list[str]:
    """A column of a table: its cells, all of the same width."""
    widths = [measure_width(cell) for cell in cells]
    gaps = [" " * (max(widths) - width) for width in widths]
    return [gap + cell if to_right else cell + gap for cell, gap in zip(cells, gaps, strict=True)]


def measure_width(text: str) -> int:
    """The columns that a text takes on a terminal: two for most Chinese, Japanese
    and Korean characters."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
