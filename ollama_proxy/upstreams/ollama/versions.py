"""How releases of Ollama differ, as far as the gateway acts on it. The texts of their errors are in `refusals.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

Release = tuple[int, ...]

_RELEASE = re.compile(r"\.".join([r"(0|[1-9][0-9]{0,8})"] * 3))


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases from `first` on, and before `end` if there is one."""

    first: Release = (0, 0, 1)
    end: Release | None = None

    def __contains__(self, version: str) -> bool:
        """Whether a version is one of them. Development builds (0.0.0), release candidates, and unknown versions count
        as newer than every release."""
        found = _RELEASE.fullmatch(version)
        if found is None or version == "0.0.0":
            return self.end is None
        release = tuple(map(int, found.groups()))
        return self.first <= release and (self.end is None or release < self.end)


#: `shift` applies to a single request. Since 0.30 it is a launch attribute of the engine, and a request with another
#: value than the loaded engine's restarts it.
SHIFT_PER_REQUEST = Releases((0, 1, 0), (0, 30, 0))

#: Formats of images that are not read. Up to 0.29 and since 0.32.14 Ollama decodes WebP itself; in between, its engine
#: gets the file, and knows no WebP.
UNREADABLE_IMAGES = {"image/gif": Releases(), "image/webp": Releases((0, 30, 0), (0, 32, 14))}

#: What is wrong with the releases of a server, for its operator.
FAULTS = (
    (
        Releases(end=(0, 32, 15)),
        "its runner may hang after an answer that it can't parse, and serve no further request",
    ),
)

#: The oldest release without known faults.
RECOMMENDED = "0.32.15"


def unreadable_images(version: str) -> frozenset[str]:
    """The media types of images that this version can't read."""
    return frozenset(media_type for media_type, releases in UNREADABLE_IMAGES.items() if version in releases)


def list_faults(version: str) -> Iterator[str]:
    """What an operator should know of this version: one sentence for each fault."""
    for releases, fault in FAULTS:
        if version in releases:
            yield f"Ollama {version} has a known fault: {fault}"
