"""The vendored scripts and style sheets of the pages are those that their lock file names."""

from __future__ import annotations

import re
from configparser import ConfigParser

from tests.assets import (
    FILES,
    LOCK,
    VENDOR,
    drop_source_map,
    integrity_of,
    licence_file,
    read_lock,
    sha256,
)

PACKAGES = read_lock()
PAGES = VENDOR.parents[1]


RECORDED = {name: hash_ for entry in PACKAGES.values() for name, hash_ in entry["files"].items()}


def test_files_are_as_recorded_and_no_others() -> None:
    found = {path.name: sha256(path.read_bytes()) for path in VENDOR.iterdir() if path != LOCK}
    assert found == RECORDED


def test_packages_have_their_licences_and_their_files() -> None:
    for name, package in PACKAGES.items():
        assert set(package["files"]) == {*FILES[name], licence_file(name)}
        assert package["license"], name
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"]), name
        assert package["integrity"].startswith("sha512-"), name


def test_no_file_asks_for_its_source_map() -> None:
    assert [
        path.name for path in VENDOR.iterdir() if b"sourceMappingURL=" in path.read_bytes()
    ] == []


def test_a_source_map_is_dropped() -> None:
    assert drop_source_map(b"a();\n//# sourceMappingURL=a.js.map\n") == b"a();\n"
    assert drop_source_map(b"a();") == b"a();"


def test_integrity_is_written_as_npm_writes_it() -> None:
    empty = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
    assert integrity_of(b"") == empty


def test_files_of_the_pages_are_installed_with_the_package() -> None:
    setup = ConfigParser()
    setup.read(PAGES.parents[2] / "setup.cfg")
    patterns = setup["options.package_data"]["ollama_proxy.admin.pages"].split()
    files = [
        path.relative_to(PAGES)
        for path in PAGES.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert [
        str(path) for path in files if not any(path.match(pattern) for pattern in patterns)
    ] == []
