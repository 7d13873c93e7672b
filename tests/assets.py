"""Vendored scripts and style sheets of the admin pages: ``python -m tests.assets [--renew]``.

Takes the packages that static/vendor/assets.json names from the npm registry, compares them with
the integrity recorded there, and copies the built files and their licences. With --renew, records
the integrity of the versions that it names: after a version has been changed there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = (
    Path(__file__).resolve().parents[1] / "ollama_proxy" / "admin" / "pages" / "static" / "vendor"
)
LOCK = VENDOR / "assets.json"

#: The files of each package by the names that they get, and the text of its licence.
FILES = {
    "htmx.org": {"htmx.min.js": "dist/htmx.min.js"},
    "htmx-ext-sse": {"htmx-ext-sse.min.js": "dist/sse.min.js"},
    "uplot": {"uPlot.iife.min.js": "dist/uPlot.iife.min.js", "uPlot.min.css": "dist/uPlot.min.css"},
    "marked": {"marked.umd.js": "lib/marked.umd.js"},
    "dompurify": {"purify.min.js": "dist/purify.min.js"},
}

#: Comments that point to files that are not here; a browser's tools would ask the gateway for them.
SOURCE_MAP = b"//# sourceMappingURL="

FETCH_S = 120


def licence_file(package: str) -> str:
    """The name of a package's licence in the directory."""
    return f"{package}.LICENSE.txt"


def read_lock() -> dict[str, Any]:
    """Version, licence, integrity and files of each package."""
    found: dict[str, Any] = json.loads(LOCK.read_text(encoding="utf-8"))
    return found


def sha256(data: bytes) -> str:
    """The digest as recorded for each file."""
    return hashlib.sha256(data).hexdigest()


def fetch(package: str, version: str, directory: str) -> bytes:
    """A package as npm packs it."""
    command = [
        "npm",
        "pack",
        f"{package}@{version}",
        "--silent",
        "--ignore-scripts",
        "--pack-destination",
        directory,
    ]
    packed = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=True)
    return (Path(directory) / packed.stdout.split()[-1]).read_bytes()


def integrity_of(data: bytes) -> str:
    """As npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def unpack(package: str, directory: str) -> dict[str, bytes]:
    """The files that are kept of a fetched package, by their names in the directory."""
    [archive] = Path(directory).glob("*.tgz")
    with tarfile.open(archive) as members:
        wanted = FILES[package] | {licence_file(package): "LICENSE"}
        found = {name: members.extractfile(f"package/{path}") for name, path in wanted.items()}
        return {name: drop_source_map(member.read()) for name, member in found.items() if member}


def drop_source_map(data: bytes) -> bytes:
    """The file without the comment at its end that names its source map."""
    body, mark, _ = data.rpartition(SOURCE_MAP)
    return body.rstrip() + b"\n" if mark else data


def vendor(package: str, entry: dict[str, Any], renew: bool) -> None:
    """Put a package's files in place, and record their digests; raises SystemExit if it is
    not the one recorded."""
    with tempfile.TemporaryDirectory() as directory:
        integrity = integrity_of(fetch(package, entry["version"], directory))
        if integrity != entry["integrity"] and not renew:
            raise SystemExit(f"{package} {entry['version']}: not the package that is recorded")
        files = unpack(package, directory)
    for name, data in files.items():
        (VENDOR / name).write_bytes(data)
    entry |= {
        "integrity": integrity,
        "files": {name: sha256(data) for name, data in sorted(files.items())},
    }


def main() -> None:
    """Put the files of all packages in place."""
    lock = read_lock()
    for package, entry in lock.items():
        vendor(package, entry, renew="--renew" in sys.argv)
        print(f"{package} {entry['version']}: {', '.join(entry['files'])}")
    LOCK.write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
