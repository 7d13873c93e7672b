"""The version of this gateway, said once, and what it was built from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

VERSION = "0.1.0"

#: The version of Ollama whose API the gateway itself speaks: some clients look at it before they use a feature.
OLLAMA_VERSION = "0.24.0"


def _build(package: Path = Path(__file__).parent) -> dict[str, str | None]:
    """What the installer has left beside the code, else what the checkout says; None: nobody tells."""
    told: Mapping[str, str] = {}
    with suppress(OSError, ValueError):
        told = json.loads((package / "build.json").read_bytes())
    return {
        "version": VERSION,
        "date": told.get("date"),
        "commit": told.get("commit") or _checked_out(package.parent / ".git"),
        "node": f"Python {sys.version.split()[0]}",
    }


def _checked_out(git: Path) -> str | None:
    """The commit of a checkout; read, so that nothing has to be run."""
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
BUILD = _build()


def version_document(ollama: str | None) -> dict[str, object]:
    """What `/api/version` says: Ollama's version, which its clients look for, and beside it the gateway's. `ollama`:
    the version of the oldest Ollama server; None: there is none that tells."""
    return {
        "version": ollama or OLLAMA_VERSION,
        "build": BUILD,
        "ollama": {"version": ollama, "api_version": "v1"},
    }
