"""docs/architecture.md and the glossary name packages and files that exist."""

from __future__ import annotations

from pathlib import Path

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


def test_named_paths_exist() -> None:
    wrong = [
        f"{name}: {path}"
        for name in ("docs/architecture.md", "CONTRIBUTING.md")
        for path in filter(is_path, codes(prose(name)))
        if not exists(path)
    ]
    assert not wrong, "\n".join(wrong)


def test_path_that_does_not_exist_is_noticed() -> None:
    missing = ("gateway/nothing.py", "nothing/", "tests/nothing.py", "wire/retries.py")
    assert all(is_path(path) and not exists(path) for path in missing)


def test_packages_are_those_of_the_architecture_test_in_its_order() -> None:
    shown = blocks("docs/architecture.md", "text")[0].text.strip().replace(", ", " ").split(" <- ")
    assert shown == ORDER.split(" | ")


def test_every_package_has_its_row() -> None:
    rows = table_with("docs/architecture.md", "`hub.py`")
    named = [codes(row[0])[0].rstrip("/").removesuffix(".py") for row in rows]
    assert sorted(named) == sorted(ORDER.replace("|", " ").split()[1:])
