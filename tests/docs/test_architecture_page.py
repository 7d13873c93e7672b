"""docs/architecture.md and the glossary name packages and files that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_architecture import ORDER
from tests.unit.test_documents import ROOT, blocks, codes, prose, table_with

PACKAGE = ROOT / "ollama_proxy"


def is_path(code: str) -> bool:
    return " " not in code and (code.endswith((".py", "/")) and not code.startswith(("/", "http")))


def exists(path: str) -> bool:
    """A path from the root of the repository, or the end of one inside the package."""
    name = path.rstrip("/")
    inside = (found for found in PACKAGE.rglob(Path(name).name) if str(found).endswith(f"/{name}"))
    return (ROOT / name).exists() or any(inside)


NAMED = [
    (name, code)
    for name in ("docs/architecture.md", "CONTRIBUTING.md")
    for code in dict.fromkeys(filter(is_path, codes(prose(name))))
]


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_named_path_exists(name: str, path: str) -> None:
    assert exists(path)


@pytest.mark.parametrize(
    "path", ["gateway/nothing.py", "nothing/", "tests/nothing.py", "wire/retries.py"]
)
def test_path_that_does_not_exist_is_noticed(path: str) -> None:
    assert is_path(path) and not exists(path)


def test_packages_are_those_of_the_architecture_test_in_its_order() -> None:
    shown = blocks("docs/architecture.md", "text")[0].text.strip().replace(", ", " ").split(" <- ")
    assert shown == ORDER.split(" | ")


def test_every_package_has_its_row() -> None:
    rows = table_with("docs/architecture.md", "`hub.py`")
    named = [codes(row[0])[0].rstrip("/").removesuffix(".py") for row in rows]
    assert sorted(named) == sorted(ORDER.replace("|", " ").split()[1:])
