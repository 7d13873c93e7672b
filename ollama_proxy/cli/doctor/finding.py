"""What `ollama-proxy doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is."""

    OK = 0
    NOTE = 1
    WARNING = 2
    FAULT = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One result. `part`: what was checked; `mend`: what to do about it, "" if
    there is nothing to do."""

    level: Level
    part: str
    what: str
    mend: str = ""

    @property
    def as_json(self) -> dict[str, str]:
        """The finding as `--json` prints it."""
        return {
            "level": self.level.name.lower(),
            "part": self.part,
            "what": self.what,
            "mend": self.mend,
        }

    @property
    def as_text(self) -> str:
        """The finding as lines for people."""
        lead = f"{self.level.name.lower():8} {self.part}: {self.what}"
        return f"{lead}\n{'':8} fix: {self.mend}" if self.mend else lead
