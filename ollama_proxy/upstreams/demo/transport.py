"""The built-in demo: one model that needs no Ollama, behind a transport that
never leaves the process.

It implements Ollama's native API of version 0.24, without state: pulling, creating and copying
change nothing, and deleting is refused. The same request gets the same answer but for its time
stamps. Thinking is off unless `think` requests it, and only the demo model itself can be pulled.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ollama_proxy.hub import Json
from ollama_proxy.settings import UpstreamSettings
from ollama_proxy.upstreams.base import Connections, Headers, TransportFactory, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.demo.answers import (
    LISTED,
    Outcome,
    chat,
    copy,
    create,
    delete,
    embed,
    embeddings,
    generate,
    ps,
    pull,
    push,
    show,
    whole,
)
from ollama_proxy.upstreams.demo.requests import Refusal, load_object
from ollama_proxy.upstreams.demo.transcriptions import transcribe
from ollama_proxy.upstreams.ollama.upstream import OllamaUpstream

#: Some clients check it before they use a feature.
VERSION = "0.24.0"

_BLOB = re.compile(r"/api/blobs/(.*)")
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class DemoReply:
    """An answer whose pieces become due one after the other; see Reply."""

    def __init__(
        self, outcome: Outcome, call: Call, connections: Connections, *, headless: bool
    ) -> None:
        """Counts as active until its end or its close, whichever is first;
        `headless`: there is no body."""
        self.status = outcome.status
        self.headers: Headers = (
            (("content-type", outcome.content_type),) if outcome.content_type else ()
        )
        self._pieces = deque(() if headless else outcome.pieces)
        self._pause_s = outcome.pause_s
        self._due = call.clock.monotonic()
        self._call = call
        self._connections: Connections | None = connections
        connections.active += 1

    def wait_head(self, wait_s: float | None = None) -> bool:
        """See Reply.wait_head."""
        self._call.check()
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """See Reply.read_some."""
        if self._connections is None:
            return b""
        self._call.check()
        if not self._pieces:
            self.close()
            return b""
        due_in_s = self._due - self._call.clock.monotonic()
        if due_in_s > 0:
            pause_s = due_in_s if wait_s is None else min(due_in_s, wait_s)
            self._call.clock.sleep(pause_s)
            self._call.check()
            if pause_s < due_in_s:
                return None
        # With the next piece, those after it that are due as well because the reader is slow.
        parts: list[bytes] = []
        while self._pieces and (not parts or self._due <= self._call.clock.monotonic()):
            parts.append(self._pieces.popleft())
            self._due += self._pause_s
        return b"".join(parts)

    def close(self) -> None:
        """Drops the remaining pieces."""
        connections, self._connections = self._connections, None
        self._pieces.clear()
        if connections is not None:
            connections.active -= 1


def build(
    declared: UpstreamSettings, key: str | None, open_transport: TransportFactory
) -> OllamaUpstream:
    """The demo behind an upstream of Ollama's kind."""
    return OllamaUpstream(declared.name, DemoTransport())


@dataclass(slots=True)
class DemoTransport:
    """Answers requests itself; see Transport."""

    connections: Connections = field(default_factory=Connections)

    def open(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> DemoReply:
        """See Transport.open. The head is there at once."""
        call.check()
        try:
            outcome = answer(request, call)
        except Refusal as refusal:
            outcome = whole({"error": refusal.text}, status=refusal.status)
        return DemoReply(outcome, call, self.connections, headless=request.method == "HEAD")

    def close(self) -> None:
        """Nothing to close: an answer in progress ends by itself."""


def answer(request: UpstreamRequest, call: Call) -> Outcome:
    """The answer to any request; raises Refusal, and CallEnded while a body is read."""
    parts = (request.body,) if isinstance(request.body, bytes) else request.body
    if blob := _BLOB.fullmatch(request.path):
        # The digest of an uploaded blob is checked, and its bytes are dropped.
        if not _DIGEST.fullmatch(blob[1]):
            raise Refusal(400, "invalid digest format")
        if request.method == "HEAD":
            raise Refusal(404, f'blob "{blob[1]}" not found')
        if request.method != "POST":
            raise Refusal(405, "405 method not allowed")
        got = hashlib.sha256()
        for part in parts:
            got.update(part)
            call.check()
        if blob[1] != f"sha256:{got.hexdigest()}":
            raise Refusal(
                400, f'digest mismatch, expected "{blob[1]}", got "sha256:{got.hexdigest()}"'
            )
        return Outcome((), content_type="", status=201)
    if request.path == OllamaUpstream.transcriptions_path:
        return transcribe(dict(request.headers).get("Content-Type", ""), b"".join(parts))
    if request.path not in ROUTES:
        raise Refusal(404, "404 page not found")
    methods, handler = ROUTES[request.path]
    if request.method not in methods:
        raise Refusal(405, "405 method not allowed")
    return handler({} if request.method in ("GET", "HEAD") else load_object(b"".join(parts)))


Handler = Callable[[Mapping[str, Json]], Outcome]

ROUTES: Mapping[str, tuple[tuple[str, ...], Handler]] = {
    "/api/version": (("GET", "HEAD"), lambda _: whole({"version": VERSION})),
    "/api/status": (("GET",), lambda _: whole({"cloud": {"disabled": True, "source": "config"}})),
    "/api/tags": (("GET", "HEAD"), lambda _: whole({"models": [LISTED]})),
    "/api/ps": (("GET",), ps),
    "/api/show": (("POST",), show),
    "/api/chat": (("POST",), chat),
    "/api/generate": (("POST",), generate),
    "/api/embed": (("POST",), embed),
    "/api/embeddings": (("POST",), embeddings),
    "/api/pull": (("POST",), pull),
    "/api/push": (("POST",), push),
    "/api/create": (("POST",), create),
    "/api/copy": (("POST",), copy),
    "/api/delete": (("DELETE",), delete),
}
