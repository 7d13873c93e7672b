"""Ollama servers that know what they have: each answers for its own models, and says 404 to all others."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.rig import SeenRequest
from tests.rig.fault_upstream import FaultUpstream, Json, Script
from tests.rig.gateway import free_port

#: Where a prompt arrives.
PROMPTS = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")

_DETAILS = {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "1M"}
_STAMP = "2026-01-01T00:00:00.000000Z"


class Box(FaultUpstream):
    """One Ollama server: its models by name, those of them that are loaded, and its version."""

    def __init__(
        self, name: str, models: Sequence[str], *, loaded: Sequence[str] = (), version: str = "0.24.0"
    ) -> None:
        super().__init__()
        self.name = name
        self.models = list(models)
        self.loaded = list(loaded)
        self.version = version

    @property
    def prompts(self) -> list[SeenRequest]:
        """The prompts that it got."""
        return [seen for seen in self.requests if seen.path in PROMPTS]

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway."""
        return {"name": self.name, "kind": "ollama", "base_url": self.url}

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would, from what it has."""
        match request.path:
            case "/api/tags":
                return [Json({"models": [row(name) for name in self.models]})]
            case "/api/ps":
                return [Json({"models": [row(name) | {"size_vram": 0, "expires_at": _STAMP} for name in self.loaded]})]
            case "/api/version":
                return [Json({"version": self.version})]
        if request.path in (*PROMPTS, "/api/show"):
            name = str(request.json().get("model"))
            if canonical(name) not in map(canonical, self.models):
                return [Json({"error": f"model '{name}' not found"}, 404)]
        return super().answer(request)


def row(name: str) -> dict[str, Any]:
    """A model's row in a list, which always has its tag."""
    name = name if ":" in name else f"{name}:latest"
    return {"name": name, "model": name, "modified_at": _STAMP, "size": 1, "digest": "5b" * 32, "details": _DETAILS}


def canonical(name: str) -> str:
    """What Ollama takes for the same name."""
    bare = name.lower().removeprefix("library/")
    return bare if ":" in bare else f"{bare}:latest"


@contextmanager
def black_hole(port: int | None = None) -> Iterator[int]:
    """A port, if need be this one, that never answers a connection: it listens, and its queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port or free_port()))
        listener.listen(0)
        while True:
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(0.3)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


@contextmanager
def running(*boxes: Box) -> Iterator[None]:
    """All of them listen."""
    with ExitStack() as stack:
        for box in boxes:
            stack.enter_context(box)
        yield


def fleet_config(token: str, boxes: Sequence[Box], **sections: Any) -> dict[str, Any]:
    """A configuration with these boxes, and what a test adds to it."""
    upstreams = [box.declared for box in boxes]
    return {"auth": {"generate_tokens": [token]}, "upstreams": upstreams} | sections
