"""The built-in demo: one model that needs no Ollama, behind a transport that never leaves the process.

It implements Ollama's native API of version 0.24, without state: pulling, creating, copying and deleting change
nothing. The same request gets the same answer but for its time stamps. Thinking is off unless `think` requests it, and
only the demo model itself can be pulled.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import gevent

from ollama_proxy.hub import Json
from ollama_proxy.settings import UpstreamSettings
from ollama_proxy.upstreams.base import Connections, Headers, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.demo.answers import Outcome, chat, embed, embeddings, generate, lines, stamp, whole
from ollama_proxy.upstreams.demo.requests import (
    CONTEXT_LENGTH,
    MODEL,
    Refusal,
    check_model,
    check_name,
    field,
    is_demo,
    load_object,
    named_model,
)
from ollama_proxy.upstreams.demo.words import DIMENSIONS
from ollama_proxy.upstreams.ollama.upstream import OllamaUpstream

#: Some clients check it before they use a feature.
VERSION = "0.24.0"

#: Seconds between two lines about a long job.
PROGRESS_PAUSE_S = 0.06

SIZE = 1_048_576
DIGEST = hashlib.sha256(MODEL.encode()).hexdigest()
MODIFIED_AT = "2026-01-01T00:00:00Z"
CAPABILITIES = ["completion", "tools", "thinking", "embedding", "vision"]
DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "demo",
    "families": ["demo"],
    "parameter_size": "1M",
    "quantization_level": "F16",
}
_NAMES, _FILE = {"name": MODEL, "model": MODEL}, {"size": SIZE, "digest": DIGEST, "details": DETAILS}
_LISTED = _NAMES | {"modified_at": MODIFIED_AT} | _FILE | {"capabilities": CAPABILITIES}

_BARE_JSON = "application/json"

_BLOB = re.compile(r"/api/blobs/(.*)")
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class DemoReply:
    """An answer whose pieces become due one after the other; see Reply."""

    def __init__(self, outcome: Outcome, call: Call, connections: Connections, *, headless: bool) -> None:
        """Counts as active until its end or its close, whichever is first; `headless`: there is no body."""
        self.status = outcome.status
        self.headers: Headers = (("content-type", outcome.content_type),) if outcome.content_type else ()
        self._pieces = deque(() if headless else outcome.pieces)
        self._pause_s = outcome.pause_s
        self._due = time.monotonic()
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
        due_in_s = self._due - time.monotonic()
        if due_in_s > 0:
            pause_s = due_in_s if wait_s is None else min(due_in_s, wait_s)
            gevent.sleep(pause_s)
            self._call.check()
            if pause_s < due_in_s:
                return None
        # With the next piece, those after it that are due as well because the reader is slow.
        parts: list[bytes] = []
        while self._pieces and (not parts or self._due <= time.monotonic()):
            parts.append(self._pieces.popleft())
            self._due += self._pause_s
        return b"".join(parts)

    def close(self) -> None:
        """Drops the remaining pieces."""
        connections, self._connections = self._connections, None
        self._pieces.clear()
        if connections is not None:
            connections.active -= 1


def build(declared: UpstreamSettings, key: str | None) -> OllamaUpstream:
    """The demo behind an upstream of Ollama's kind."""
    return OllamaUpstream(declared.name, DemoTransport())


class DemoTransport:
    """Answers requests itself; see Transport."""

    def __init__(self) -> None:
        self.connections = Connections()

    def open(self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None) -> DemoReply:
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
    if blob := _BLOB.fullmatch(request.path):
        return _blob(request, blob[1], call)
    if request.path not in ROUTES:
        raise Refusal(404, "404 page not found")
    methods, handler = ROUTES[request.path]
    if request.method not in methods:
        raise Refusal(405, "405 method not allowed")
    if request.method in ("GET", "HEAD"):
        return handler({})
    body = request.body if isinstance(request.body, bytes) else b"".join(request.body)
    return handler(load_object(body))


# Models, and the requests that would change them.


def _ps(_: Mapping[str, Json]) -> Outcome:
    facts = {"expires_at": stamp(300.0), "size_vram": 0, "context_length": CONTEXT_LENGTH}
    return whole({"models": [_NAMES | _FILE | facts]})


def _show(data: Mapping[str, Json]) -> Outcome:
    check_model(named_model(data))
    info = {
        "general.architecture": "demo",
        "general.basename": "demo",
        "general.file_type": 1,
        "general.parameter_count": 1_000_000,
        "demo.block_count": 1,
        "demo.context_length": CONTEXT_LENGTH,
        "demo.embedding_length": DIMENSIONS,
        "tokenizer.ggml.tokens": [] if field(data, "verbose", False) else None,
    }
    facts = {
        "license": "The built-in demo of ollama-proxy; no model behind it.",
        "modelfile": f"# The built-in demo of ollama-proxy\nFROM {MODEL}\n",
        "parameters": f"{'num_ctx':<30} {CONTEXT_LENGTH}",
        "template": "{{ .Prompt }}",
        "details": DETAILS,
        "model_info": info,
        "capabilities": CAPABILITIES,
        "modified_at": MODIFIED_AT,
    }
    return whole(facts)


def _progress(data: Mapping[str, Json], steps: Sequence[Mapping[str, Json]], error: str = "") -> Outcome:
    """The lines of a long job, or its end alone; `error` is how it fails once it has begun."""
    if field(data, "stream", True):
        return lines([*steps, {"error": error} if error else {"status": "success"}], pause_s=PROGRESS_PAUSE_S)
    if error:
        return whole({"error": error}, status=500, content_type=_BARE_JSON)
    return whole({"status": "success"}, content_type=_BARE_JSON)


_NO_MANIFEST = "pull model manifest: file does not exist"


def _pull(data: Mapping[str, Json]) -> Outcome:
    name = named_model(data)
    check_name(name)
    start = {"status": "pulling manifest"}
    if not is_demo(name):
        return _progress(data, [start], _NO_MANIFEST)
    return _progress(
        data,
        [start, *_transfer("pulling"), {"status": "verifying sha256 digest"}, {"status": "writing manifest"}],
    )


def _push(data: Mapping[str, Json]) -> Outcome:
    name = named_model(data)
    check_name(name)
    start = {"status": "retrieving manifest"}
    if not is_demo(name):
        return _progress(data, [start, {"status": "couldn't retrieve manifest"}], f"model '{name}' not found")
    return _progress(data, [start, *_transfer("pushing"), {"status": "pushing manifest"}])


def _transfer(verb: str) -> list[dict[str, Json]]:
    """Ten steps of one layer; the first has nothing completed, and Ollama leaves out what is zero."""
    line: dict[str, Json] = {"status": f"{verb} {DIGEST[:12]}", "digest": f"sha256:{DIGEST}", "total": SIZE}
    return [line, *(line | {"completed": SIZE * step // 10} for step in range(1, 11))]


def _create(data: Mapping[str, Json]) -> Outcome:
    check_name(named_model(data))
    source, files = field(data, "from", ""), field(data, "files", dict[str, Json]())
    if not source and not files:
        raise Refusal(400, "neither 'from' or 'files' was specified")
    if source and not is_demo(source):
        return _progress(data, [{"status": "pulling manifest"}], _NO_MANIFEST)
    layer = f"using existing layer sha256:{DIGEST}" if source else "parsing GGUF"
    return _progress(data, [{"status": layer}, {"status": "writing manifest"}])


def _copy(data: Mapping[str, Json]) -> Outcome:
    check_model(field(data, "source", ""))
    check_name(field(data, "destination", ""))
    return Outcome((), content_type="")


def _delete(data: Mapping[str, Json]) -> Outcome:
    check_model(named_model(data))
    return Outcome((), content_type="")


def _blob(request: UpstreamRequest, digest: str, call: Call) -> Outcome:
    """Checks the digest of an uploaded blob, and drops it."""
    wanted = _DIGEST.fullmatch(digest)
    if not wanted:
        raise Refusal(400, "invalid digest format")
    if request.method == "HEAD":
        raise Refusal(404, f'blob "{digest}" not found')
    if request.method != "POST":
        raise Refusal(405, "405 method not allowed")
    got = hashlib.sha256()
    for part in (request.body,) if isinstance(request.body, bytes) else request.body:
        got.update(part)
        call.check()
    if digest != f"sha256:{got.hexdigest()}":
        raise Refusal(400, f'digest mismatch, expected "{digest}", got "sha256:{got.hexdigest()}"')
    return Outcome((), content_type="", status=201)


Handler = Callable[[Mapping[str, Json]], Outcome]

ROUTES: Mapping[str, tuple[tuple[str, ...], Handler]] = {
    "/api/version": (("GET", "HEAD"), lambda _: whole({"version": VERSION})),
    "/api/status": (("GET",), lambda _: whole({"cloud": {"disabled": True, "source": "config"}})),
    "/api/tags": (("GET", "HEAD"), lambda _: whole({"models": [_LISTED]})),
    "/api/ps": (("GET",), _ps),
    "/api/show": (("POST",), _show),
    "/api/chat": (("POST",), chat),
    "/api/generate": (("POST",), generate),
    "/api/embed": (("POST",), embed),
    "/api/embeddings": (("POST",), embeddings),
    "/api/pull": (("POST",), _pull),
    "/api/push": (("POST",), _push),
    "/api/create": (("POST",), _create),
    "/api/copy": (("POST",), _copy),
    "/api/delete": (("DELETE",), _delete),
}
