"""Who may use the admin API and pages, and from where."""

from __future__ import annotations

from dataclasses import dataclass

from ollama_proxy.settings.declare import setting
from ollama_proxy.settings.formats import NETWORK
from ollama_proxy.settings.types import BOOLEAN, list_of


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin API, below /admin/api."""

    enabled: bool = setting(True, "false: there is no such API; its addresses get 404.", BOOLEAN)
    allow: tuple[str, ...] = setting(
        (), "Addresses and networks that may use it; empty: all. Others get 403.", list_of(NETWORK)
    )
