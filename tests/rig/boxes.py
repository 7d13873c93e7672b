"""Ollama servers that know what they have: each answers for its own models, and
says 404 to all others."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.rig import SeenRequest, Turn
from tests.rig.fault_upstream import FaultUpstream, Json, Lines, Script, WaitFor, Whole
from tests.rig.gateway import free_port

#: Where a prompt arrives.
PROMPTS = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")

_DETAILS = {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "1M"}
_STAMP = "2026-01-01T00:00:00.000000Z"


class Box(FaultUpstream):
    """One Ollama server: its models by name, those of them that are loaded, and its version."""

    def __init__(
        self,
        name: str,
        models: Sequence[str],
        *,
        loaded: Sequence[str] = (),
        version: str = "0.24.0",
    ) -> None:
        super().__init__()
        self.name = name
        self.models = list(models)
        self.loaded = list(loaded)
        self.version = version
        self._first = (list(models), list(loaded))

    @property
    def prompts(self) -> list[SeenRequest]:
        """The prompts that it got."""
        return [seen for seen in self.requests if seen.path in PROMPTS]

    def restore(self) -> bool:
        """Has the models that it began with, and has loaded those; False: nothing had changed."""
        is_changed = (self.models, self.loaded) != self._first
        self.models[:], self.loaded[:] = self._first
        return is_changed

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
                return [
                    Json(
                        {
                            "models": [
                                row(name) | {"size_vram": 0, "expires_at": _STAMP}
                                for name in self.loaded
                            ]
                        }
                    )
                ]
        if request.path in (*PROMPTS, "/api/show"):
            name = str(request.json().get("model"))
            if canonical(name) not in map(canonical, self.models):
                return [Json({"error": f"model '{name}' not found"}, 404)]
        return super().answer(request)


class FileBox(Box):
    """An Ollama server that keeps uploaded files, by their digests, and makes models of them."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [])
        self.files: set[str] = set()

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would, from what it has."""
        place, _, digest = request.path.rpartition("/")
        if place == "/api/blobs":
            return [self._answer_file(request, digest)]
        if request.path != "/api/create":
            return super().answer(request)
        asked = request.json()
        if (
            lacking := {file for field in _FILES for file in asked.get(field, {}).values()}
            - self.files
        ):
            return [Json({"error": f"open {lacking.pop()}: no such file or directory"}, 400)]
        self.models.append(asked["model"])
        return [Lines([{"status": "parsing GGUF"}, {"status": "success"}])]

    def _answer_file(self, request: SeenRequest, digest: str) -> Whole | Json:
        if digest in self.files or request.method == "HEAD":
            return Whole(b"", 200 if digest in self.files else 404, ())
        real = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
        if digest != real:
            return Json({"error": f'digest mismatch, expected "{digest}", got "{real}"'}, 400)
        self.files.add(digest)
        return Whole(b"", 201, ())

    def uploads(self, digest: str) -> int:
        """How often it got this file."""
        return sum(seen.method == "POST" and seen.path.endswith(digest) for seen in self.requests)


class WorkBox(Box):
    """An Ollama server whose prompts take as long as the test says, and that counts how
    many it has at a time."""

    def __init__(
        self, name: str, models: Sequence[str], *, slots: int, takes_s: float = 0.0
    ) -> None:
        """`slots`: its `concurrency` in the configuration; `takes_s`: how long a prompt takes."""
        super().__init__(name, models)
        self.slots = slots
        self.takes_s = takes_s
        #: Prompts end only while it is set.
        self.go = threading.Event()
        self.go.set()
        #: How many prompts it has, and the most that it had at a time.
        self.running = self.most = 0
        self._counting = threading.Lock()

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway."""
        return super().declared | {"concurrency": self.slots}

    def clear(self) -> None:
        """See ScriptedServer; it goes to work again."""
        super().clear()
        self.go.set()
        self.most = self.running

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would; a prompt is work."""
        script = super().answer(request)
        return [_Work(self), *script] if request.path in PROMPTS else script

    def count(self, more: int) -> None:
        """So many prompts more."""
        with self._counting:
            self.running += more
            self.most = max(self.most, self.running)


@dataclass(frozen=True)
class _Work:
    """The work on a prompt. It is over before the answer begins, so that nobody can know of its end
    before its server does."""

    box: WorkBox

    def play(self, turn: Turn) -> None:
        self.box.count(1)
        try:
            turn.wire.wait(self.box.takes_s)
            WaitFor(self.box.go, 60).play(turn)
        finally:
            self.box.count(-1)


#: Fields of a `create` with uploaded files.
_FILES = ("files", "adapters", "draft_files")

#: Options that an engine is started with; a request with others restarts it.
LAUNCH_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")


class EngineBox(Box):
    """An Ollama server with one engine for each model, restarted like the scheduler of 0.30 and
    later does it: by every request whose launch attributes differ from those of the loaded engine,
    of which `shift` is one. Before 0.30 `shift` is no launch attribute. `starts` has the launch
    attributes of every start, in order.

    A word is a token. `num_predict` is the length of an answer, as its counts have it.
    """

    def __init__(
        self, name: str, models: Sequence[str], *, version: str = "0.32.15", context: int = 512
    ) -> None:
        super().__init__(name, models, version=version)
        self.context = context
        self.starts: list[dict[str, Any]] = []
        self._engines: dict[str, dict[str, Any]] = {}
        self._starting = threading.Lock()

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would, with the engine that this request starts or finds."""
        if request.path == "/api/ps":
            engines = [
                row(name) | {"context_length": launch["num_ctx"]}
                for name, launch in self._engines.items()
            ]
            return [
                Json(
                    {"models": [each | {"size_vram": 0, "expires_at": _STAMP} for each in engines]}
                )
            ]
        if request.path not in PROMPTS or canonical(str(request.json()["model"])) not in map(
            canonical, self.models
        ):
            return super().answer(request)
        return self._answer_prompt(request)

    def unload(self) -> None:
        """Ends every engine and forgets all starts."""
        with self._starting:
            self._engines.clear()
            self.starts.clear()

    def _answer_prompt(self, request: SeenRequest) -> Script:
        body = request.json()
        context = self._launch(body)["num_ctx"]
        prompt = max(map(_words, _texts(body)))
        keeps = body.get("shift") is False
        if prompt > context:
            if body.get("truncate") is False or (keeps and self._restarts_by_shift):
                return [Json({"error": _overflow(prompt, context)}, 400)]
            prompt = context // 2
        if request.path.startswith("/api/embed"):
            return super().answer(request)
        wanted = (body.get("options") or {}).get("num_predict") or 3
        spoken = min(wanted, context - prompt) if keeps else wanted
        end = {"done_reason": "length" if spoken < wanted else "stop", "prompt_eval_count": prompt}
        return _answered(request.path, body, end | {"eval_count": spoken})

    @property
    def _restarts_by_shift(self) -> bool:
        numbers = self.version.split(".")
        return not (numbers[0] == "0" and numbers[1].isdigit() and 0 < int(numbers[1]) < 30)

    def _launch(self, body: dict[str, Any]) -> dict[str, Any]:
        """The launch attributes of the engine for a request, which is started if need be."""
        options = {name: (body.get("options") or {}).get(name) for name in LAUNCH_OPTIONS}
        launch = options | {
            "model": canonical(body["model"]),
            "num_ctx": options["num_ctx"] or self.context,
        }
        if self._restarts_by_shift:
            launch["shift"] = body.get("shift") is not False
        with self._starting:
            if self._engines.get(launch["model"]) != launch:
                self._engines[launch["model"]] = launch
                self.starts.append(launch)
        return launch


def _texts(body: dict[str, Any]) -> list[str]:
    """The texts that have to fit into the context, each alone."""
    given = body.get("input", body.get("prompt", ""))
    if messages := body.get("messages"):
        given = " ".join(str(message.get("content") or "") for message in messages)
    return [str(text) for text in given] if isinstance(given, list) else [str(given)]


def _words(text: str) -> int:
    return max(1, len(text.split()))


def _overflow(prompt: int, context: int) -> str:
    """What `llama-server` says, in the envelope that Ollama leaves around it."""
    text = (
        f"request ({prompt} tokens) exceeds the available context size ({context} "
        "tokens), try increasing it"
    )
    counts = {"n_prompt_tokens": prompt, "n_ctx": context}
    return json.dumps(
        {"error": {"code": 400, "message": text, "type": "exceed_context_size_error"} | counts}
    )


def _answered(path: str, body: dict[str, Any], end: dict[str, Any]) -> Script:
    frame = {"model": body["model"], "created_at": _STAMP}
    text = (
        {"message": {"role": "assistant", "content": "Yes."}}
        if path == "/api/chat"
        else {"response": "Yes."}
    )
    last = {**frame, **text, "done": True, "total_duration": 5_000_000, **end}
    return (
        [Json(last)]
        if body.get("stream") is False
        else [Lines([{**frame, **text, "done": False}, last])]
    )


def row(name: str) -> dict[str, Any]:
    """A model's row in a list, which always has its tag."""
    name = name if ":" in name else f"{name}:latest"
    return {
        "name": name,
        "model": name,
        "modified_at": _STAMP,
        "size": 1,
        "digest": "5b" * 32,
        "details": _DETAILS,
    }


def canonical(name: str) -> str:
    """What Ollama takes for the same name."""
    bare = name.lower().removeprefix("library/")
    return bare if ":" in bare else f"{bare}:latest"


@contextmanager
def black_hole(port: int | None = None) -> Iterator[int]:
    """A port, if need be this one, that never answers a connection: it listens,
    and its queue is full."""
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
def running(*boxes: Box) -> Iterator[tuple[Box, ...]]:
    """All of them listen; gives them."""
    with ExitStack() as stack:
        for box in boxes:
            stack.enter_context(box)
        yield boxes


def fleet_config(token: str, boxes: Sequence[Box], **sections: Any) -> dict[str, Any]:
    """A configuration with these boxes, and what a test adds to it."""
    upstreams = [box.declared for box in boxes]
    return {"auth": {"generate_tokens": [token]}, "upstreams": upstreams} | sections
