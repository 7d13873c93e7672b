"""The timeouts, and the mapping that overrides them for an upstream or a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ollama_proxy.settings.declare import read_section, setting
from ollama_proxy.settings.formats import SECONDS
from ollama_proxy.settings.types import SettingType


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts, in seconds."""

    connect_s: float = setting(3.0, "For connecting to an upstream.", SECONDS)
    first_byte_s: float = setting(
        600.0, "For the first byte of an answer; a model may have to load.", SECONDS, env=("TIMEOUT",)
    )
    idle_s: float = setting(120.0, "Between two parts of an answer.", SECONDS, env=("TIMEOUT",))
    total_s: float = setting(3600.0, "For a whole answer.", SECONDS)
    send_idle_s: float = setting(60.0, "For a client that stops reading or sending.", SECONDS)

    def override(self, *overrides: Mapping[str, float]) -> Timeouts:
        """A copy with some of them replaced; later overrides win."""
        merged: dict[str, float] = {}
        for each in overrides:
            merged.update(each)
        return replace(self, **merged)


OVERRIDES: SettingType[dict[str, float]] = SettingType(
    "a mapping of timeouts", lambda entry: read_section(Timeouts, entry)
)
