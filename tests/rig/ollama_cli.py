"""What Ollama's command line sends, and what it prints of an answer that says no;
the same in 0.24 and 0.32.

A model of its behaviour, compared with the program itself by hand: its source is not
needed to run the tests.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.rig.http_client import Answer

USER_AGENTS = (
    "ollama/0.24.0 (amd64 linux) Go/go1.24.1",
    "ollama/0.32.15 (arm64 darwin) Go/go1.26.0",
    "ollama/0.0.0",
)
#: Other programs that speak Ollama's API, also with names that begin or end like its own.
OTHERS = (
    "ollama-python/0.6.1 (x86_64 linux) Python/3.11.2",
    "ollama-js/0.6.0 (x64 linux Node.js/v22.0.0)",
    "python-requests/2.34.0",
    "Mozilla/5.0 ollama/0.32.15",
    "my-ollama/1.0",
    "ollama",
    "",
)

SIGN_IN = "You need to be signed in to Ollama to run Cloud models."
NO_TEXT = "something went wrong, please see the ollama server logs for details"


class Command(NamedTuple):
    """The request of a command that needs a token. Each command sends `HEAD /` first."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    #: It reads the answer line by line.
    streams: bool = False
    #: It takes every 401 for one of ollama.com.
    signs_in: bool = False


COMMANDS = {
    "list": Command("GET", "/api/tags"),
    "ps": Command("GET", "/api/ps"),
    "show": Command("POST", "/api/show", {"model": "m"}),
    "run": Command("POST", "/api/show", {"model": "m"}, signs_in=True),
    "run, the prompt": Command(
        "POST", "/api/generate", {"model": "m", "prompt": "hi"}, streams=True, signs_in=True
    ),
    "run, a chat": Command(
        "POST", "/api/chat", {"model": "m", "messages": []}, streams=True, signs_in=True
    ),
    "pull": Command("POST", "/api/pull", {"model": "m"}, streams=True),
    "create": Command("POST", "/api/create", {"model": "n", "from": "m"}, streams=True),
    "create, a file": Command("POST", "/api/blobs/sha256:" + "0" * 64, {}),
    "cp": Command("POST", "/api/copy", {"source": "m", "destination": "n"}),
    "rm": Command("DELETE", "/api/delete", {"model": "m"}),
    "version": Command("GET", "/api/version"),
}


def printed(command: Command, answer: Answer) -> str:
    """What the command prints of an answer of 400 or more."""
    if answer.status == 401 and command.signs_in:
        return SIGN_IN
    if answer.status == 401:
        return "401 UNAUTHORIZED" if command.streams else _field(answer, "status") or NO_TEXT
    text = _field(answer, "error") or NO_TEXT
    return f"{answer.status}: {text}" if command.streams else text


def _field(answer: Answer, name: str) -> str:
    try:
        document = json.loads(answer.body)
    except json.JSONDecodeError:
        return answer.text if name == "error" else ""
    return str(document.get(name) or "")
