"""What an answer of the soak must be: every request has a number, and every word of
its answer another one."""

from __future__ import annotations

import re

#: Behind the words, in turn: characters of every width, and one that careless readers take
#: for the end of a line.
ENDINGS = ("", "é", "语", "\u2028", "🙂")

_ASKED = re.compile(rb"soak-(\d+)-(\d+)")


def prompt_of(number: int, count: int) -> str:
    """What asks for an answer of `count` words."""
    return f"soak-{number}-{count}"


def asked(body: bytes) -> tuple[int, int] | None:
    """The number of a request and how many words it wants; None where it
    asks for something else."""
    found = _ASKED.search(body)
    return (int(found[1]), int(found[2])) if found else None


def words_of(number: int, count: int) -> list[str]:
    """The answer to that request, word by word."""
    return [f" {number}.{place}{ENDINGS[place % len(ENDINGS)]}" for place in range(count)]
