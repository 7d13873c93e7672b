"""Golden cases: a client's request, what the upstream must get, what it says, and
what the client must get.

A case is a directory with these files:

- `case.json`: `path` asked by the client and `upstream_path`, `why` the case is there,
  `single_status` if not 200;
- `request.json`, `upstream.request.json`: both without `stream`, which a test adds;
- `upstream.ndjson`: the lines of the streamed answer, cut by the test; the single answer is made
  from them as Ollama does it (the last line, with everything before it added up);
- `expected.sse`, `expected.json`: the answer, its ids and times replaced as by `face.normalised`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent
NDJSON = {"Content-Type": "application/x-ndjson"}

#: What adds up from line to line, on the line itself and inside its `message`.
_TEXTS = ("content", "thinking", "response")


@dataclass(frozen=True)
class Case:
    """One case; see the module."""

    directory: Path
    path: str
    upstream_path: str
    why: str
    single_status: int = 200

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def request(self) -> dict[str, Any]:
        return self._json("request.json")

    @property
    def upstream_request(self) -> dict[str, Any]:
        return self._json("upstream.request.json")

    @property
    def expected_single(self) -> dict[str, Any]:
        return self._json("expected.json")

    @property
    def lines(self) -> bytes:
        return (self.directory / "upstream.ndjson").read_bytes()

    @property
    def expected_stream(self) -> bytes:
        return (self.directory / "expected.sse").read_bytes()

    @property
    def is_complete(self) -> bool:
        """Whether the upstream's answer has its proper end."""
        return self.single_status == 200

    def single(self) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer that Ollama gives when it is not asked to stream."""
        documents = [json.loads(line) for line in self.lines.splitlines()]
        if "error" in documents[-1]:
            return 500, documents[-1]
        return 200, added_up(documents)

    def _json(self, file: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.directory / file).read_bytes())
        return document


def cases(dialect: str) -> list[Case]:
    """All cases of a dialect, by name."""
    directories = sorted(path.parent for path in (GOLDEN / dialect).glob("*/case.json"))
    return [
        Case(directory, **json.loads((directory / "case.json").read_bytes()))
        for directory in directories
    ]


def added_up(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The last line of a stream with everything that the lines before it said."""
    whole = documents[-1]
    target = whole.get("message", whole)
    for field in _TEXTS:
        text = "".join(line.get("message", line).get(field) or "" for line in documents)
        if text or field in target:
            target[field] = text
    calls = [call for line in documents for call in line.get("message", {}).get("tool_calls") or ()]
    if calls:
        target["tool_calls"] = calls
    logprobs = [entry for line in documents for entry in line.get("logprobs") or ()]
    if logprobs:
        whole["logprobs"] = logprobs
    return whole
