"""Which formats of images an Ollama server can't read, by its version."""

from __future__ import annotations

import re

Version = tuple[int, int, int]

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")

#: The format, and the first and the last release that can't read it; None: from the beginning, or up to now. Up to 0.29
#: and since 0.32.14 Ollama decodes WebP itself; in between, its engine gets the file, and knows no WebP.
UNREADABLE: tuple[tuple[str, Version | None, Version | None], ...] = (
    ("image/gif", None, None),
    ("image/webp", (0, 30, 0), (0, 32, 13)),
)


def unreadable_images(version: str) -> frozenset[str]:
    """The media types that this release can't read. Other versions than releases, and unknown ones, count as new."""
    found = _VERSION.fullmatch(version)
    release = (int(found[1]), int(found[2]), int(found[3])) if found and version != "0.0.0" else None
    return frozenset(
        media_type
        for media_type, first, last in UNREADABLE
        if (last is None if release is None else (first or release) <= release <= (last or release))
    )
