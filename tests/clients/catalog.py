"""The programs of the suite: their locked packages in programs/, and their
sections in docs/clients.md."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
PAGE = PROJECT / "docs/clients.md"
#: Where `python -m tests.clients.install` puts them.
INSTALLED = PROJECT / ".cache/clients"
#: What `make test` installs and runs: each API, and both kinds of programs. The others are
#: left to `make clients`.
CHOSEN = ("claude-code", "codex", "llm", "openai-agents", "pydantic-ai")

_PIN = re.compile(r"^[\w.-]+(?:\[[\w,]+\])?==([\w.]+)", re.MULTILINE)
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: The languages of the examples; blocks in others are files.
_RUN = ("sh", "python")
_FILE = re.compile(r"`~/([^`]+)`")


class Program(NamedTuple):
    """A program or framework, and the directory that has its lock file."""

    name: str
    packages: Path

    @property
    def installed(self) -> Path:
        """The directory that has its packages, if they are installed."""
        return INSTALLED / self.name

    @property
    def is_javascript(self) -> bool:
        """Whether it comes from npm; else it comes from PyPI."""
        return (self.packages / "package.json").exists()

    @property
    def lock(self) -> Path:
        return self.packages / ("package-lock.json" if self.is_javascript else "requirements.txt")

    @property
    def version(self) -> str:
        """The pinned version of the first package that is asked for."""
        if self.is_javascript:
            [pin] = json.loads((self.packages / "package.json").read_bytes())[
                "dependencies"
            ].values()
            return re.findall(r"\d+\.\d+\.\d+", pin)[0]
        return _PIN.findall((self.packages / "requirements.in").read_text(encoding="utf-8"))[0]

    @property
    def commands(self) -> list[Path]:
        """The directories that have its commands."""
        if not self.is_javascript:
            return [self.installed / "bin"]
        modules = self.installed / "node_modules"
        own = ("*/bin", "@*/*", "@*/*/bin", "@*/*/vendor/*/bin")
        return [modules / ".bin", *(path for pattern in own for path in modules.glob(pattern))]

    def problem(self) -> str:
        """Why it can't be run here; "" if it can."""
        if (reason := self.installed / "reason").exists():
            return reason.read_text(encoding="utf-8").strip()
        stamp = self.installed / ".installed"
        if not stamp.exists() or stamp.read_bytes() != self.lock.read_bytes():
            return "not installed: `make clients` does that"
        return ""


class Example(NamedTuple):
    """What the page says of a program: files of the home directory, and what is run."""

    program: Program
    #: The first of the program's examples is 1.
    number: int
    files: dict[str, str]
    language: str
    text: str


def programs() -> list[Program]:
    """All of them, by name."""
    return [Program(path.name, path) for path in sorted((HERE / "programs").iterdir())]


def section(program: Program) -> str:
    """The part of the page that describes a program, under its name; "" if there is none."""
    title = program.name.replace("-", "[ -]")
    heading = re.compile(
        rf"^### {title}$\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL | re.IGNORECASE
    )
    found = heading.search(PAGE.read_text(encoding="utf-8"))
    return found[1] if found else ""


def examples(program: Program) -> list[Example]:
    """The blocks of a program's section that are run, with the files that the others show."""
    text = section(program)
    files, shown = {}, []
    for block in _FENCE.finditer(text):
        if block[1] in _RUN:
            shown.append((block[1], block[2]))
        else:
            files[_FILE.findall(text[: block.start()])[-1]] = block[2]
    return [Example(program, number, files, *each) for number, each in enumerate(shown, 1)]


def titles() -> list[str]:
    """The headings of the page's sections about programs and frameworks."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("\n## Coding assistants\n")
    part, _, _ = rest.partition("\n## The ollama program\n")
    return re.findall(r"^### (.+)$", part, re.MULTILINE)


def is_supported() -> bool:
    """Whether the locked binaries are for this machine."""
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")
