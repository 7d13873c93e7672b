"""What the gateway knows of its own build."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from ollama_proxy import version
from ollama_proxy.version import BUILD, OLLAMA_VERSION, VERSION, version_document

COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The directory of the package, in a checkout that was never made."""
    directory = tmp_path / "ollama_proxy"
    directory.mkdir()
    return directory


def build(package: Path) -> dict[str, str | None]:
    return version._read_build(package)


def write(package: Path, name: str, text: str) -> None:
    path = package.parent / ".git" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_what_nobody_tells_is_null(package: Path) -> None:
    python = f"Python {platform.python_version()}"
    assert build(package) == {"version": VERSION, "date": None, "commit": None, "node": python}


def test_what_the_installer_has_left_counts(package: Path) -> None:
    write(package, "HEAD", OTHER)
    (package / "build.json").write_text(
        json.dumps({"commit": COMMIT, "date": "2026-11-21T10:00:00+00:00"})
    )
    told = build(package)
    assert (told["commit"], told["date"]) == (COMMIT, "2026-11-21T10:00:00+00:00")


@pytest.mark.parametrize("text", ["", "{", "\xff"])
def test_a_broken_file_is_no_file(package: Path, text: str) -> None:
    (package / "build.json").write_text(text)
    assert build(package)["commit"] is None


def test_commit_of_a_branch(package: Path) -> None:
    write(package, "HEAD", "ref: refs/heads/main\n")
    write(package, "refs/heads/main", f"{COMMIT}\n")
    assert build(package)["commit"] == COMMIT


def test_commit_of_a_packed_branch(package: Path) -> None:
    write(package, "HEAD", "ref: refs/heads/main\n")
    write(
        package,
        "packed-refs",
        f"# pack-refs with: peeled\n{OTHER} refs/heads/maintenance\n{COMMIT} refs/heads/main\n",
    )
    assert build(package)["commit"] == COMMIT


def test_commit_without_a_branch(package: Path) -> None:
    write(package, "HEAD", f"{COMMIT}\n")
    assert build(package)["commit"] == COMMIT


def test_a_branch_without_a_commit_has_none(package: Path) -> None:
    write(package, "HEAD", "ref: refs/heads/main\n")
    assert build(package)["commit"] is None


@pytest.mark.parametrize(("ollama", "shown"), [("0.9.1", "0.9.1"), (None, OLLAMA_VERSION)])
def test_version_document(ollama: str | None, shown: str) -> None:
    assert version_document(ollama) == {
        "version": shown,
        "build": BUILD,
        "ollama": {"version": ollama, "api_version": "v1"},
    }
