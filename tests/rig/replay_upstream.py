"""An upstream that sends what a real Ollama sent: the files of `tests/recordings`, cut
the way a test asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from tests.rig import SeenRequest, Turn, pieces
from tests.rig.fault_upstream import Json, Script, ScriptedServer

RECORDINGS = Path(__file__).parent.parent / "recordings"
Version = Literal["0.24", "0.32", "0.34"]
Cut = Literal["recorded", "whole"] | int
Edges = Literal["chunks", "sends"]


@dataclass(frozen=True)
class Recording:
    """One exchange with a real Ollama; the bodies are untouched bytes."""

    name: str
    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...]
    request: bytes
    response: bytes
    #: sizes of the HTTP chunks as they arrived; None when the answer had a length
    chunks: tuple[int, ...] | None
    note: str
    request_content_type: str

    @property
    def sent_headers(self) -> list[tuple[str, str]]:
        """The headers of a replay: as recorded, but the connection may stay open."""
        return [(name, value) for name, value in self.headers if name.lower() != "connection"]


@cache
def recordings(version: Version = "0.24") -> tuple[Recording, ...]:
    """All recordings of one version of Ollama, in the order of the index."""
    directory = RECORDINGS / version
    return tuple(
        _load(directory, row) for row in json.loads((directory / "index.json").read_bytes())
    )


def recording(name: str, version: Version = "0.24") -> Recording:
    """One recording by its name. Raises KeyError if there is none."""
    found = next((one for one in recordings(version) if one.name == name), None)
    if found is None:
        raise KeyError(f"no recording is named {name!r}")
    return found


def recorded_at(place: str) -> Recording:
    """One recording by its version and name, such as `0.32/chat-hello-single`. Raises
    KeyError if there is none."""
    version, _, name = place.partition("/")
    return recording(name, cast(Version, version))


def _load(directory: Path, row: dict[str, Any]) -> Recording:
    def read(file: str | None) -> bytes:
        return (directory / file).read_bytes() if file else b""

    return Recording(
        name=row["name"],
        method=row["method"],
        path=row["path"],
        status=row["status"],
        headers=tuple((name, value) for name, value in row["headers"]),
        request=read(row.get("request")),
        response=read(row.get("response")),
        chunks=tuple(row["chunks"]) if "chunks" in row else None,
        note=row.get("note", ""),
        request_content_type=row.get("request_content_type", "application/json"),
    )


@dataclass(frozen=True)
class Replay:
    """The action that sends a recorded answer.

    ``cut`` is "recorded" (Ollama's own chunks), "whole" (one chunk) or a number of bytes. With a
    number, ``edges`` says what is cut: "chunks" makes HTTP chunks of that size; "sends" keeps
    Ollama's chunks and sends so many bytes of the wire at a time, through chunk heads as well. An
    answer with a length has no chunks, so there both cut the sends.
    """

    recording: Recording
    cut: Cut = "recorded"
    edges: Edges = "chunks"

    def play(self, turn: Turn) -> None:
        recorded = self.recording
        turn.head(recorded.status, recorded.sent_headers, False)
        size = self.cut if isinstance(self.cut, int) else None
        per_send = size if recorded.chunks is None or self.edges == "sends" else None
        for part in self._parts():
            turn.piece(part, per_send)

    def _parts(self) -> Iterator[bytes]:
        body, chunks = self.recording.response, self.recording.chunks
        if chunks is None or self.cut == "whole":
            yield body
        elif isinstance(self.cut, int) and self.edges == "chunks":
            yield from pieces(body, self.cut)
        else:
            start = 0
            for size in chunks:
                yield body[start : start + size]
                start += size


class ReplayUpstream(ScriptedServer):
    """Answers a recorded request with the recorded bytes, and anything else with 501. Paths
    can be scripted as well."""

    def __init__(self, cut: Cut = "recorded", *, edges: Edges = "chunks") -> None:
        super().__init__()
        self.cut = cut
        self.edges = edges
        self._forced: dict[tuple[str, str], tuple[Recording, int | None]] = {}

    def answer_with(
        self, name: str, *, times: int | None = None, version: Version = "0.24"
    ) -> Recording:
        """Answer all (or the next ``times``) requests for its method and path with a
        recording, whatever their body."""
        chosen = recording(name, version)
        self._forced[chosen.method, chosen.path] = (chosen, times)
        return chosen

    def clear(self) -> None:
        """Forget what was forced, scripted and seen."""
        super().clear()
        self._forced.clear()

    def answer(self, request: SeenRequest) -> Script:
        """The forced recording, else the one that was recorded for this request, else
        501 with what was asked."""
        found = self._take_forced(request) or match(request)
        if found is None:
            asked = (
                f"{request.method} {request.raw_path} "
                f"{request.body[:2000].decode('utf-8', 'replace')}"
            )
            return [Json({"error": f"no recording for {asked}"}, 501)]
        return [Replay(found, self.cut, self.edges)]

    def _take_forced(self, request: SeenRequest) -> Recording | None:
        key = (request.method, request.path)
        with self._log.changed:
            chosen, left = self._forced.get(key, (None, None))
            if chosen is not None and left is not None:
                self._forced[key] = (chosen, left - 1)
                if left <= 1:
                    del self._forced[key]
        return chosen


def match(request: SeenRequest) -> Recording | None:
    """The recording of a request: equal bytes first, then equal JSON in any order of keys.

    Where several recordings share a request, the content type decides, then success goes before
    failure, then the order of the index.
    """
    same_route = [
        one for one in recordings() if (one.method, one.path) == (request.method, request.path)
    ]
    same_body = [one for one in same_route if one.request == request.body]
    if not same_body and (asked := _canonical(request.body)) is not None:
        same_body = [one for one in same_route if _canonical(one.request) == asked]
    sent_type = (
        (request.header("content-type") or "application/json").partition(";")[0].strip().lower()
    )
    return min(
        same_body,
        key=lambda one: (one.request_content_type != sent_type, one.status >= 400),
        default=None,
    )


@cache
def _canonical(body: bytes) -> str | None:
    try:
        return json.dumps(json.loads(body), sort_keys=True)
    except ValueError:
        return None
