"""How clients are set up for this gateway: what the page Connect shows, from clients.toml.

The texts there have the address, model and token of the documentation; `fill_in`
puts others in their place.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollama_proxy.admin.pages.language import N_

#: What stands in the texts for the gateway, for a model, and for a token where no
#: environment variable can.
ADDRESS, MODEL, TOKEN = "http://localhost:8080", "demo", "<token>"

_MODEL = re.compile(rf"\b{MODEL}\b")

#: In the order of the page.
_GROUPS = {
    "command-line": N_("Command line"),
    "coding": N_("Coding assistants"),
    "chats": N_("Chats"),
    "libraries": N_("Libraries"),
    "frameworks": N_("Frameworks"),
}

#: Titles of snippets that are words; all others are names of files and packages.
TITLES = (N_("Command line"), N_("Environment"), N_("Environment, with Ollama's API"))

#: What has to be known, by client.
_NOTES = {
    "Ollama": N_(
        "Ollama's own command line can't send a token, so the token is part of the address."
    ),
    "Claude Code": N_("Do not set ANTHROPIC_API_KEY as well: two different tokens are refused."),
    "Cline": N_("The command line is tested; the extension takes the same settings."),
    "Zed": N_(
        "`max_tokens` is the context length of the model. Zed reads the token from the "
        "variable, or asks for it."
    ),
    "LangChain": N_("OpenAIEmbeddings needs check_embedding_ctx_length=False."),
    "Open WebUI": N_(
        "Give it a token of its own. The gateway can share fairly between the people behind it."
    ),
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text to copy."""

    text: str
    #: The file that it belongs into, or what it is.
    title: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and what sets it up."""

    name: str
    snippets: tuple[Snippet, ...]
    note: str = ""
    #: Its names in tests/clients; those in docs/features.md. None: no test has run it.
    programs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in addresses."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def versions(self) -> str:
        """The versions of programs that tests have run; "" for libraries,
        which are tested in many."""
        return ", ".join(dict.fromkeys(TESTED_PROGRAMS[name] for name in self.programs))


def fill_in(text: str, address: str, model: str, token: str) -> str:
    """A text of a snippet for this gateway, model and token."""
    # The model first: the address, or the token, may contain its name.
    filled = _MODEL.sub(lambda _: model, text)
    return filled.replace(ADDRESS, address).replace(TOKEN, token)


def _read_client(declared: dict[str, Any]) -> Client:
    return Client(
        declared["name"],
        tuple(Snippet(**each) for each in declared["snippet"]),
        _NOTES.get(declared["name"], ""),
        tuple(declared.get("programs", ())),
        tuple(declared.get("libraries", ())),
    )


_DECLARED = tomllib.loads(Path(__file__).with_name("clients.toml").read_text(encoding="utf-8"))

#: Programs that tests have run, with their versions.
TESTED_PROGRAMS: dict[str, str] = _DECLARED["tested"]

#: The titles of the groups, with the clients of each.
GROUPS: tuple[tuple[str, tuple[Client, ...]], ...] = tuple(
    (title, tuple(_read_client(each) for each in _DECLARED["client"] if each["group"] == group))
    for group, title in _GROUPS.items()
)
