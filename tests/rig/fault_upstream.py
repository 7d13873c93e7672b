"""An upstream made of raw sockets that does exactly what a test scripts for a path, and logs
what reached it and when.

The actions are what a script is made of; `ScriptedServer` plays them, one thread per connection;
`FaultUpstream` answers every path without a script like a small, healthy Ollama. Nothing here
imports the package under test.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from tests.rig import (
    NDJSON,
    SSE,
    STALLED_S,
    Event,
    HangUp,
    HeaderItems,
    Log,
    PeerClosed,
    SeenRequest,
    Turn,
    Wire,
    parse_head,
    pieces,
)

_MAX_HEAD = 1 << 20


class Action(Protocol):
    """One step of a script. A body still open at the end is ended cleanly, unless `Cut`
    or `Reset` came last."""

    def play(self, turn: Turn) -> None: ...


Script = Sequence[Action]


@dataclass(frozen=True)
class Send:
    """These bytes as they are, with no framing added."""

    data: bytes

    def play(self, turn: Turn) -> None:
        turn.send(self.data)


@dataclass(frozen=True)
class Head:
    """Status and headers.

    The body is chunked unless the headers name a length; with ``chunked=False`` it then
    ends with the connection.
    """

    status: int = 200
    headers: HeaderItems = ()
    chunked: bool = True

    def play(self, turn: Turn) -> None:
        turn.head(self.status, self.headers, self.chunked)


@dataclass(frozen=True)
class Whole:
    """A complete answer with a Content-Length."""

    body: bytes
    status: int = 200
    headers: HeaderItems = (("Content-Type", "text/plain; charset=utf-8"),)

    def play(self, turn: Turn) -> None:
        turn.head(
            self.status,
            [*dict(self.headers).items(), ("Content-Length", str(len(self.body)))],
            False,
        )
        turn.piece(self.body)


@dataclass(frozen=True)
class Json:
    """A complete JSON answer with a Content-Length."""

    value: Any
    status: int = 200
    headers: HeaderItems = ()

    def play(self, turn: Turn) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8", **dict(self.headers)}
        Whole(_compact(self.value), self.status, headers).play(turn)


@dataclass(frozen=True)
class Lines:
    """JSON lines, one HTTP chunk each; bytes among them go out as they are, for
    lines that are not JSON.

    ``edges`` is the number of bytes per send (they cut the chunk heads too), ``delay_s`` the
    pause between two lines.
    """

    values: Iterable[Any]
    edges: int | None = None
    delay_s: float = 0.0

    def play(self, turn: Turn) -> None:
        turn.begin(NDJSON)
        lines = [
            value if isinstance(value, bytes) else _compact(value) + b"\n" for value in self.values
        ]
        _play_spaced(turn, lines, self.edges, self.delay_s)


@dataclass(frozen=True)
class Sse:
    """Server-sent events with JSON data, one HTTP chunk each, and ``data: [DONE]`` at
    the end when ``done``."""

    values: Iterable[Any]
    edges: int | None = None
    delay_s: float = 0.0
    done: bool = True

    def play(self, turn: Turn) -> None:
        turn.begin(SSE)
        texts = [*map(_compact, self.values), *([b"[DONE]"] if self.done else [])]
        _play_spaced(turn, [b"data: %s\n\n" % text for text in texts], self.edges, self.delay_s)


@dataclass(frozen=True)
class Chunk:
    """One part of the body, framed as the head said."""

    data: bytes

    def play(self, turn: Turn) -> None:
        turn.piece(self.data)


@dataclass(frozen=True)
class EndChunks:
    """The final chunk."""

    def play(self, turn: Turn) -> None:
        turn.end_chunks()


@dataclass(frozen=True)
class Wait:
    """Say nothing for a while; the script is over as soon as the peer leaves."""

    seconds: float

    def play(self, turn: Turn) -> None:
        turn.wire.wait(self.seconds)


@dataclass(frozen=True)
class WaitFor:
    """Say nothing until the test sets the event or the peer leaves; the
    connection is cut at the limit."""

    event: threading.Event
    limit_s: float = 10.0

    def play(self, turn: Turn) -> None:
        deadline = time.monotonic() + self.limit_s
        while not self.event.is_set():
            if time.monotonic() > deadline:
                raise HangUp
            turn.wire.wait(0.01)


@dataclass(frozen=True)
class WaitForPeerClose:
    """Say nothing until the peer leaves; goes on with the script if it is
    still there at the limit."""

    limit_s: float = 10.0

    def play(self, turn: Turn) -> None:
        turn.wire.wait(self.limit_s)
        turn.wire.log.event("peer_stayed", turn.wire.number)


@dataclass(frozen=True)
class Drip:
    """These raw bytes one by one with a pause between them: a head, or a body framed by `chunk`."""

    data: bytes
    interval_s: float

    def play(self, turn: Turn) -> None:
        _play_spaced(turn, pieces(self.data, 1), None, self.interval_s, raw=True)


@dataclass(frozen=True)
class Flood:
    """The same part of the body again and again, as fast as the peer takes it, until either limit.

    A part for which the peer makes no room until ``limit_s`` stays incomplete
    and the connection is cut.
    """

    data: bytes
    limit_bytes: int | None = None
    limit_s: float = 10.0

    def play(self, turn: Turn) -> None:
        turn.begin(NDJSON)
        deadline, sent = time.monotonic() + self.limit_s, 0
        while time.monotonic() < deadline and (self.limit_bytes is None or sent < self.limit_bytes):
            turn.piece(self.data, limit_s=deadline - time.monotonic())
            sent += len(self.data)


@dataclass(frozen=True)
class Cut:
    """Close the connection here: no final chunk, no rest of the length."""

    def play(self, turn: Turn) -> None:
        raise HangUp


@dataclass(frozen=True)
class Reset:
    """End the connection with a TCP reset."""

    def play(self, turn: Turn) -> None:
        turn.wire.reset()
        raise HangUp


@dataclass(frozen=True)
class CloseAfter:
    """Put before the head: it says ``Connection: close``, and the connection is
    closed after this answer."""

    def play(self, turn: Turn) -> None:
        turn.close_after = True


@dataclass(frozen=True)
class NoReadBody:
    """Somewhere in a script: the request's body is not read before the script starts."""

    def play(self, turn: Turn) -> None:
        return None


@dataclass(frozen=True)
class ReadBody:
    """Read the request's body at this point of the script instead of before it."""

    def play(self, turn: Turn) -> None:
        turn.read_body()


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _play_spaced(
    turn: Turn, parts: Sequence[bytes], edges: int | None, delay_s: float, *, raw: bool = False
) -> None:
    for number, part in enumerate(parts):
        if number and delay_s:
            turn.wire.wait(delay_s)
        if raw:
            turn.send(part)
        else:
            turn.piece(part, edges)


#: What a gateway asks from time to time.
_LOOK = "/api/version"

#: Every server of this process by its port.
_SERVERS: WeakValueDictionary[int, ScriptedServer] = WeakValueDictionary()


def server_at(port: int) -> ScriptedServer | None:
    """Return the scripted server of this process that has this port."""
    return _SERVERS.get(port)


class ScriptedServer:
    """An HTTP/1.1 server on 127.0.0.1: plays the scripts of a path, and what `answer`
    says for other paths."""

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, close_idle_after_s: float | None = None
    ) -> None:
        self.close_idle_after_s = close_idle_after_s
        self._ssl_context = ssl_context
        self._log = Log()
        #: By path and model; None: of any model.
        self._scripts: dict[tuple[str, str | None], deque[Script]] = {}
        self._wires: dict[int, Wire] = {}
        self._threads: list[threading.Thread] = []
        self._accepted = 0
        #: Connections that have brought a request.
        self._kept: set[int] = set()
        self._listener: socket.socket | None = None
        self._is_waiting = False
        # bound but never listening: while the server refuses, the port stays
        # ours and answers with RST
        self._claim = self._bind(0)
        self.port: int = self._claim.getsockname()[1]
        _SERVERS[self.port] = self

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request so far, in the order of their arrival."""
        return self._log.requests

    @property
    def events(self) -> list[Event]:
        """Everything that happened so far."""
        return self._log.events

    @property
    def connections_open(self) -> int:
        """How many connections are open at this moment."""
        return len(self._wires)

    @property
    def is_listening(self) -> bool:
        """Whether it takes connections; not between `refuse` and `restart`."""
        return self._listener is not None

    def bytes_sent(self, connection: int | None = None) -> int:
        """Bytes that the kernel has taken so far, on one connection or on all."""
        sent = self._log.sent
        return sum(sent.values()) if connection is None else sent[connection]

    def script(self, path: str, actions: Script, *more: Script, model: str | None = None) -> None:
        """Answer ``path`` by these scripts: one request each, the last one again and again.

        With ``model``, only requests that name this model, whose bodies are read before their
        script begins: so no request gets the script of another one. Others get the script
        without a model.
        """
        with self._log.changed:
            self._scripts[path, model] = deque([actions, *more])

    def clear(self) -> None:
        """Forget scripts, requests and events, but no connection.

        What has arrived is read first, for a second at most: a gateway that breaks off the second
        of two requests has sent it, and the next test would take it for its own.
        """
        deadline = time.monotonic() + 1
        while not self._is_quiet() and time.monotonic() < deadline:
            time.sleep(0.001)
        with self._log.changed:
            for memory in (self._scripts, self._log.requests, self._log.events):
                memory.clear()

    def wait_for_request(
        self, n: int = 1, path: str | None = None, seconds: float = 5
    ) -> SeenRequest:
        """The ``n``-th request (from 1), of one path or of all but the gateway's own looks whether
        it is there. Raises AssertionError if it does not come in time."""

        def matching() -> list[SeenRequest]:
            return [
                seen
                for seen in self.requests
                if (seen.path == path if path else seen.path != _LOOK)
            ]

        def what() -> str:
            return f"request {n} for {path or 'any path'} did not come; seen: {[r.raw_path for r in self.requests]}"

        self._log.wait(lambda: len(matching()) >= n, seconds, what)
        return matching()[n - 1]

    def wait_event(self, kind: str, connection: int | None = None, seconds: float = 5) -> Event:
        """The first event of a kind, on one connection or on any. Raises AssertionError if it
        does not come in time."""

        looked_at = 0

        def found() -> Event | None:
            # Called for each new event, of which a flood makes tens of thousands.
            nonlocal looked_at
            new = self.events[looked_at:]
            looked_at += len(new)  # others may come meanwhile
            return next(
                (e for e in new if e.kind == kind and connection in (None, e.connection)), None
            )

        def what() -> str:
            return f"no {kind} on connection {connection}: {self.events[-20:]}"

        event: Event = self._log.wait(found, seconds, what)
        return event

    def wait_peer_closed(self, connection: int, seconds: float = 5) -> float:
        """The monotonic time at which the peer closed this connection."""
        return self.wait_event("peer_closed", connection, seconds).at

    def refuse(self, *, drop: bool = True) -> None:
        """Refuse connections like a server that is down, and ``drop`` the open ones.
        The port stays reserved."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            self._threads.pop(0).join()
            listener.close()
        for wire in list(self._wires.values()) if drop else ():
            wire.stopping = True
            wire.shut(socket.SHUT_RDWR)

    def restart(self) -> None:
        """Listen (again) on the same port."""
        self._listener = self._bind(self.port)
        self._listener.listen(1024)
        self._threads.insert(
            0, threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        )
        self._threads[0].start()

    def stop(self) -> None:
        """Close everything and wait for the connections' threads."""
        self.refuse()
        for thread in self._threads:
            thread.join(5)
        self._claim.close()

    def accept(self) -> int:
        """Return the number of a new connection."""
        self._accepted += 1
        self._log.event("accepted", self._accepted)
        return self._accepted

    def take_script(self, request: SeenRequest) -> Script:
        """Log a request that has arrived with its body, and return what answers it."""
        script = self._next_script(request.path, _model_of(request))
        self._log.request(request)
        return self.answer(request) if script is None else script

    def log_event(self, kind: str, connection: int) -> None:
        """Log what happened on a connection."""
        self._log.event(kind, connection)

    def answer(self, request: SeenRequest) -> Script:
        """What to play for a request whose path has no script."""
        return [
            Json({"error": f"nothing is scripted for {request.method} {request.raw_path}"}, 501)
        ]

    def _is_quiet(self) -> bool:
        listener = self._listener
        if listener is not None:
            poller = select.poll()
            poller.register(listener, select.POLLIN)
            # In the order of `Wire.is_quiet`.
            if poller.poll(0) or not self._is_waiting:
                return False
        return all(wire.is_quiet() for wire in list(self._wires.values()))

    def _bind(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return sock

    def _accept(self, listener: socket.socket) -> None:
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        while True:
            self._is_waiting = True
            poller.poll()
            self._is_waiting = False
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # refuse() has shut the listener
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self.accept()
            wire = self._wires[number] = Wire(sock, number, self._log)
            self._threads.append(
                threading.Thread(target=self._connection, args=(wire,), daemon=True)
            )
            self._threads[-1].start()

    def _connection(self, wire: Wire) -> None:
        kind = "closed"
        try:
            if self._ssl_context:
                wire.handshake(self._ssl_context)
            while self._exchange(wire):
                pass
        except PeerClosed:
            kind = "closed" if wire.stopping else "peer_closed"
        except ssl.SSLError:
            kind = "tls_failed"
        except HangUp:
            pass
        finally:
            wire.sock.close()
            del self._wires[wire.number]
            self._log.event(kind, wire.number)

    def _exchange(self, wire: Wire) -> bool:
        """Read one request and answer it. True when another one may follow."""
        wire.leaves_body = False
        raw = self._read_head(wire)
        if raw is None:
            return False
        try:
            turn = Turn(wire, parse_head(raw, wire.number))
            script = self._script_for(turn)
        except ValueError:
            self._log.event("bad_request", wire.number, len(raw))
            wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        for action in script:
            action.play(turn)
        return turn.finish()

    def _read_head(self, wire: Wire) -> bytes | None:
        # A connection that has brought nothing yet is none that is kept.
        limit_s = self.close_idle_after_s if wire.number in self._kept else None
        idle_s = STALLED_S if limit_s is None else limit_s
        while (end := wire.buffer.find(b"\r\n\r\n")) < 0:
            if len(wire.buffer) > _MAX_HEAD or not wire.receive(
                STALLED_S if wire.buffer else idle_s
            ):
                return None
        self._kept.add(wire.number)
        return wire.take(end + 4)

    def _script_for(self, turn: Turn) -> Script:
        """Choose the script and log the request, with its body unless the script wants
        to treat that itself."""
        request = turn.request
        try:
            model = None
            if any(path == request.path and named for path, named in list(self._scripts)):
                turn.read_body()
                model = _model_of(request)
            script = self._next_script(request.path, model)
            if not request.complete and (
                script is None
                or not any(isinstance(action, NoReadBody | ReadBody) for action in script)
            ):
                turn.read_body()
        finally:
            self._log.request(request)
            turn.wire.leaves_body = not request.complete
        return self.answer(request) if script is None else script

    def _next_script(self, path: str, model: str | None) -> Script | None:
        with self._log.changed:
            queue = self._scripts.get((path, model)) or self._scripts.get((path, None))
            return None if not queue else queue.popleft() if len(queue) > 1 else queue[0]


def _model_of(request: SeenRequest) -> str | None:
    """The model that a request names, if its body is a JSON object with one."""
    try:
        body = request.json()
    except ValueError:
        return None
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


MODEL = "tiny-test:latest"
_DETAILS = {
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "1M",
    "quantization_level": "F16",
}
_ENTRY = {"name": MODEL, "model": MODEL, "size": 1989929, "digest": "5b" * 32, "details": _DETAILS}
_STAMP = "2026-01-01T00:00:00.000000Z"
_DONE = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 5_000_000,
    "load_duration": 1_000_000,
    "prompt_eval_count": 7,
    "prompt_eval_duration": 1_000_000,
    "eval_count": 3,
    "eval_duration": 2_000_000,
}
WORDS = ("Hello", " from", " upstream")


class FaultUpstream(ScriptedServer):
    """A healthy little Ollama with one model, except on the paths that a test has scripted."""

    #: Of Ollama, as it reports it.
    version = "0.24.0"

    def answer(self, request: SeenRequest) -> Script:
        """An answer of the right shape for what a gateway asks; 404 like
        Ollama's for anything else."""
        if (request.method, request.path) == ("GET", "/api/version"):
            return [Json({"version": self.version})]
        fixed = _FIXED.get((request.method, request.path))
        if fixed is not None:
            return fixed
        if request.method == "POST" and request.path in _MODEL_ROUTES:
            return _MODEL_ROUTES[request.path](request.json())
        return [Whole(b"404 page not found", 404, {"Content-Type": "text/plain"})]


def _spoken(body: dict[str, Any], part: Callable[[str], dict[str, Any]]) -> Script:
    frame = {"model": body.get("model", MODEL), "created_at": _STAMP}
    if body.get("stream") is False:
        return [Json({**frame, **part("".join(WORDS)), **_DONE})]
    return [
        Lines(
            [
                *({**frame, **part(word), "done": False} for word in WORDS),
                {**frame, **part(""), **_DONE},
            ]
        )
    ]


def _chat(body: dict[str, Any]) -> Script:
    return _spoken(body, lambda text: {"message": {"role": "assistant", "content": text}})


def _generate(body: dict[str, Any]) -> Script:
    return _spoken(body, lambda text: {"response": text})


def _embed(body: dict[str, Any]) -> Script:
    texts = body.get("input", "")
    count = len(texts) if isinstance(texts, list) else 1
    vectors = [[0.5, -0.5, 0.25]] * count
    return [
        Json({"model": body.get("model", MODEL), "embeddings": vectors, "prompt_eval_count": count})
    ]


def _show(body: dict[str, Any]) -> Script:
    capabilities = ["completion", "tools", "thinking", "vision", "embedding"]
    info = {"general.architecture": "llama", "llama.context_length": 8192}
    return [
        Json(
            {
                "details": _DETAILS,
                "model_info": info,
                "capabilities": capabilities,
                "modified_at": _STAMP,
            }
        )
    ]


_FIXED: dict[tuple[str, str], Script] = {
    ("GET", "/"): [Whole(b"Ollama is running")],
    ("HEAD", "/"): [Whole(b"Ollama is running")],
    ("GET", "/api/tags"): [Json({"models": [{**_ENTRY, "modified_at": _STAMP}]})],
    ("GET", "/api/ps"): [
        Json({"models": [{**_ENTRY, "expires_at": _STAMP, "size_vram": 0, "context_length": 8192}]})
    ],
}
_MODEL_ROUTES: dict[str, Callable[[dict[str, Any]], Script]] = {
    "/api/chat": _chat,
    "/api/generate": _generate,
    "/api/embed": _embed,
    "/api/show": _show,
}
