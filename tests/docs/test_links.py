"""Relative links lead to files that exist, and `#...` to a heading."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.test_documents import DOCUMENTS, ROOT, headings, prose

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(name: str) -> set[str]:
    """What `#...` may lead to, by the rule that repository hosts use."""
    titles = (title.lower().replace("`", "") for _, title in headings(name))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def relative_links(name: str) -> list[str]:
    return [
        target
        for target in _LINK.findall(prose(name))
        if not target.startswith(("http://", "https://"))
    ]


def is_broken(name: str, target: str) -> bool:
    path, _, anchor = target.partition("#")
    reached = ((ROOT / name).parent / path).resolve() if path else ROOT / name
    return not reached.exists() or bool(
        anchor and anchor not in anchors(str(reached.relative_to(ROOT)))
    )


def test_relative_links_lead_to_files_and_headings() -> None:
    links = [(name, target) for name in DOCUMENTS for target in relative_links(name)]
    wrong = [f"{name}: {target}" for name, target in links if is_broken(name, target)]
    assert links
    assert not wrong, "\n".join(wrong)


def test_broken_link_is_noticed() -> None:
    broken = ("docs/nothing.md", "docs/errors.md#nothing", "#nothing", "../README.md")
    assert [target for target in broken if not is_broken("README.md", target)] == []


def test_every_page_is_reached_from_the_index() -> None:
    index = {
        (ROOT / "docs" / target.partition("#")[0]).resolve()
        for target in relative_links("docs/README.md")
    }
    assert set((ROOT / "docs").glob("*.md")) - index == {ROOT / "docs" / "README.md"}


def test_front_page_is_short() -> None:
    sizes = {name: len(Path(ROOT / name).read_bytes()) for name in ("README.md", "README.zh.md")}
    assert {name: size for name, size in sizes.items() if size >= 9 * 1024} == {}
