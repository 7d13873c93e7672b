"""Small wrong changes to the product, each of which a test must catch; see mutations.toml."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutations.toml")
TIERS = ("quick", "test")


@dataclass(frozen=True)
class Mutation:
    """One wrong change: `text` of `file` becomes `wrong`, and one of `tests` must fail."""

    id: str
    file: str
    text: str
    wrong: str
    tests: str
    tier: str

    def apply(self, source: str) -> str:
        """Return the wrong source; raise ValueError unless the text occurs exactly once."""
        if source.count(self.text) != 1:
            raise ValueError(f"{self.id}: text occurs {source.count(self.text)} x in {self.file}")
        return source.replace(self.text, self.wrong)


def read_mutations() -> list[Mutation]:
    """Return all mutations, in the order of the list."""
    areas = tomllib.loads(LIST.read_text()).items()
    return [Mutation(f"{area}.{name}", **entry) for area, of in areas for name, entry in of.items()]


def pytest_arguments(tests: str) -> list[str]:
    """Return the arguments for pytest: a file is found by its name in every suite, so that it may
    move from one to another. Raise ValueError if no suite has it."""
    return [found for word in shlex.split(tests) for found in _expand(word)]


def _expand(word: str) -> Iterator[str]:
    name, _, test = word.partition("::")
    if not name.endswith(".py"):
        yield word  # -k and its expression
        return
    files = sorted(PROJECT.glob(f"tests/*/{name}"))
    found = [each for each in files if f"def {test.partition('[')[0]}" in each.read_text()]
    if not found:
        raise ValueError(f"no suite has {word}")
    for each in found:
        yield f"{each.relative_to(PROJECT)}{'::' * bool(test)}{test}"
