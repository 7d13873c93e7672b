"""The version of this gateway, and the commit and date of its build."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

VERSION = "0.1.0"

#: The version of Ollama whose API the gateway implements: some clients check it
#: before they use a feature.
OLLAMA_VERSION = "0.24.0"


def _read_build(package: Path = Path(__file__).parent) -> dict[str, str | None]:
    """The details from the installer's build.json, else from the checkout; None: unknown."""
    details: Mapping[str, str] = {}
    with suppress(OSError, ValueError):
        details = json.loads((package / "build.json").read_bytes())
    return {
        "version": VERSION,
        "date": details.get("date"),
        "commit": details.get("commit") or _read_commit(package.parent / ".git"),
        "node": f"Python {sys.version.split()[0]}",
    }


def _read_commit(git: Path) -> str | None:
    """The commit of a checkout, read from its files, so git is not needed."""
    with suppress(OSError, ValueError):
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        name = head.removeprefix("ref: ")
        if name == head:
            return head
        with suppress(FileNotFoundError):
            return (git / name).read_text(encoding="ascii").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    return None


#: Read once, when the process starts.
BUILD = _read_build()


def version_document(ollama: str | None) -> dict[str, object]:
    """The answer of `/api/version`: Ollama's version, which its clients expect, and the gateway's.
    `ollama`: the version of the oldest Ollama server; None: unknown."""
    return {
        "version": ollama or OLLAMA_VERSION,
        "build": BUILD,
        "ollama": {"version": ollama, "api_version": "v1"},
    }
