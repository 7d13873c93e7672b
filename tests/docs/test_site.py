"""`make docs` builds the site from the documents, without a warning and without
anything from the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.programs import require_program
from tests.unit.test_documents import DOCUMENTS, ROOT

_REMOTE = re.compile(
    r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']https?:|<link\b[^>]*\bhref=["']https?:"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the site that `make docs` has built."""
    built = tmp_path_factory.mktemp("site")
    places = [
        f"DOCS_SOURCE={built / 'source'}",
        f"SITE={built / 'html'}",
        f"BIN={Path(sys.executable).parent}",
    ]
    # The tools are there: these tests run with them.
    command = [require_program("make"), "-o", ".venv/.dev", "docs", *places]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return built / "html"


def test_every_document_is_a_page_that_loads_nothing_from_the_network(site: Path) -> None:
    pages = {
        str(page.relative_to(site)): page.read_text(encoding="utf-8")
        for page in site.rglob("*.html")
    }
    expected = {
        re.sub(r"(^|/)README\.html$", r"\1index.html", name.removesuffix(".md") + ".html")
        for name in DOCUMENTS
    }
    assert expected - pages.keys() == set()
    assert [name for name, text in pages.items() if _REMOTE.search(text)] == []


def test_remote_asset_is_noticed() -> None:
    assert _REMOTE.search('<link rel="stylesheet" href="https://fonts.example/css">')
    assert not _REMOTE.search('<a href="https://example.org/">')
