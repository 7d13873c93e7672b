"""A transport that plays the scripts of a scripted server in the process of the test.

No socket and no thread: the request goes to the server of this process that has the port of the
upstream's address, and its script runs in a greenlet whose pieces the reply hands out one by one.
What only the wire shows (bytes without framing, TCP resets, bodies that are not read) needs the
real transport.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any
from urllib.parse import unquote, urlsplit

import gevent
from gevent.event import Event
from requests.structures import CaseInsensitiveDict

from ollama_proxy.clock import Clock
from ollama_proxy.errors import UpstreamConnect, UpstreamCut, UpstreamTimeout
from ollama_proxy.upstreams import Call, Headers, Redirected, UpstreamRequest
from ollama_proxy.upstreams.base import Connections
from tests.rig import STALLED_S, HangUp, HeaderItems, Log, PeerClosed, SeenRequest, pieces
from tests.rig.fault_upstream import Script, ScriptedServer, server_at

#: Pieces that are kept until the gateway takes them; then the script waits, as a server does whose
#: peer has a full window.
MOST_PIECES = 16


class MemoryWire:
    """What a script may ask of its connection."""

    def __init__(self, number: int, clock: Clock, log: Log) -> None:
        self.number, self.log = number, log
        self._clock = clock
        self._left = Event()

    def wait(self, seconds: float, events: int = 0) -> bool:
        """Wait. Raises PeerClosed as soon as the gateway has left."""
        if self._clock.wait(self._left, seconds):
            raise PeerClosed
        return False

    def leave(self) -> None:
        """The gateway leaves."""
        self._left.set()


class MemoryTurn:
    """One request and the answer that its script gives; see `tests.rig.Turn`."""

    def __init__(self, request: SeenRequest, clock: Clock, log: Log, *, is_bodiless: bool) -> None:
        self.request = request
        self.wire = MemoryWire(request.connection, clock, log)
        self.close_after = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.pieces: deque[bytes] = deque()
        #: None while the script runs; then whether the answer is whole.
        self.is_whole: bool | None = None
        self.changed, self._has_room = Event(), Event()
        self.failure: Exception | None = None
        self._is_bodiless = is_bodiless
        self._is_framed, self._owed = True, 0

    def read_body(self) -> None:
        """Nothing is left to read: the request came with its body."""

    def head(self, status: int, headers: HeaderItems, chunked: bool) -> None:
        """Begin the answer; ``chunked``: its body is framed unless the headers say how."""
        items = list(headers.items() if isinstance(headers, Mapping) else headers)
        given = {name.lower(): value for name, value in items}
        self._is_bodiless = self._is_bodiless or status in (204, 304)
        self._is_framed = chunked or bool(given.keys() & {"content-length", "transfer-encoding"})
        self._owed = 0 if self._is_bodiless else int(given.get("content-length") or 0)
        self.headers = [(name.lower(), value) for name, value in items]
        self.status = status
        self.changed.set()

    def begin(self, headers: HeaderItems) -> None:
        """Begin the answer with status 200, unless the script has begun it."""
        if not self.status:
            self.head(200, headers, True)

    def piece(self, data: bytes, edges: int | None = None, limit_s: float = STALLED_S) -> None:
        """Send a part of the body, ``edges`` bytes at a time."""
        if self._is_bodiless or not data:
            return
        for cut in pieces(data, edges):
            self._wait_for_room(limit_s)
            self.pieces.append(cut)
            self._owed -= len(cut)
            self.changed.set()

    def send(self, data: bytes, limit_s: float = STALLED_S) -> None:
        """Refuse: bytes without framing need a socket."""
        raise NotImplementedError("this script needs the real transport")

    def end_chunks(self) -> None:
        """Nothing to do: the end of the script is the end of the body."""

    def play(self, script: Script) -> None:
        """Play the script to its end."""
        try:
            for action in script:
                action.play(self)  # type: ignore[arg-type]  # has what the actions use of a Turn
            self._end(is_whole=self.status != 0 and self._owed <= 0)
        except HangUp:
            self._end(is_whole=bool(self.status) and not self._is_framed)
        except NotImplementedError as error:  # the test's fault, so it ends the test
            self.failure = error
            self._end(is_whole=False)

    def take_piece(self) -> bytes:
        """Return the next piece, and make room for another one."""
        self._has_room.set()
        return self.pieces.popleft()

    def _end(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        self.changed.set()

    def _wait_for_room(self, limit_s: float) -> None:
        ends_at = time.monotonic() + limit_s
        while len(self.pieces) >= MOST_PIECES:
            self._has_room.clear()
            self.wire.wait(0)
            if not self._has_room.wait(min(0.05, limit_s)) and time.monotonic() > ends_at:
                raise HangUp


class MemoryReply:
    """An answer whose pieces a script makes; see Reply."""

    def __init__(
        self, server: ScriptedServer, turn: MemoryTurn, call: Call, connections: Connections
    ) -> None:
        self.status, self.headers = 0, ()
        self._server, self._turn, self._call = server, turn, call
        self._connections: Connections | None = connections
        self._clock = call.clock
        self._first_byte_at = self._clock.monotonic() + call.timeouts.first_byte_s
        self._idle_at: float | None = None
        connections.active += 1
        call.attach(turn.changed.set)
        self._script = gevent.spawn(self._play, server.take_script(turn.request))

    status: int
    headers: Headers

    def wait_head(self, wait_s: float | None = None) -> bool:
        """See Reply.wait_head."""
        if self.status:
            return True
        turn, limit_s = self._turn, self._call.timeouts.first_byte_s
        if not self._wait(
            lambda: turn.status or turn.is_whole is not None, self._first_byte_at, wait_s
        ):
            if self._clock.monotonic() < self._first_byte_at:
                return False
            raise UpstreamTimeout(f"The model server did not begin to answer in {limit_s:g} s.")
        if not turn.status:
            raise UpstreamCut(detail="upstream closed before its answer: None")
        if 300 <= turn.status < 400:
            raise Redirected(turn.status, dict(turn.headers).get("location", ""))
        self.status, self.headers = turn.status, turn.headers
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """See Reply.read_some."""
        turn, limit_s = self._turn, self._call.timeouts.idle_s
        if self._connections is None:
            return b""
        if self._idle_at is None:
            self._idle_at = self._clock.monotonic() + limit_s
        if not self._wait(lambda: turn.pieces or turn.is_whole is not None, self._idle_at, wait_s):
            if self._clock.monotonic() < self._idle_at:
                return None
            raise UpstreamTimeout(f"The model server was silent for {limit_s:g} s.")
        self._idle_at = None
        if turn.pieces:
            return turn.take_piece()
        if not turn.is_whole:
            raise UpstreamCut(detail="upstream closed inside its answer: None")
        self.close()
        return b""

    def close(self) -> None:
        """See Reply.close."""
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.active -= 1
            self._call.detach()
            self._turn.wire.leave()

    def _wait(self, condition: Any, limit_at: float, wait_s: float | None) -> bool:
        """Wait for a condition; False at the earlier of the two limits."""
        call, turn = self._call, self._turn
        give_up_at = inf if wait_s is None else self._clock.monotonic() + wait_s
        while True:
            call.check()
            if turn.failure is not None:
                raise turn.failure
            if condition():
                return True
            left_s = min(limit_at, give_up_at, call.ends_at) - self._clock.monotonic()
            if left_s <= 0:
                return False
            turn.changed.clear()
            self._clock.wait(turn.changed, left_s)

    def _play(self, script: Script) -> None:
        kind, number = "closed", self._turn.request.connection
        try:
            self._turn.play(script)
        except PeerClosed:
            kind = "peer_closed"
        self._server.log_event(kind, number)


class MemoryTransport:
    """A transport to a scripted server of this process; see Transport."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str] | None = None) -> None:
        url = urlsplit(base_url)
        self._port = url.port or 0
        self._prefix = url.path.rstrip("/")
        self._headers = CaseInsensitiveDict(
            {"Host": url.netloc, "User-Agent": "ollama-proxy", "Accept-Encoding": "identity"}
        )
        self._headers.update(headers or {})
        self.connections = Connections()

    def open(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> MemoryReply:
        """See Transport.open."""
        call.check()
        server = server_at(self._port)
        if server is None or not server.is_listening:
            failure = UpstreamConnect(detail=f"connect to 127.0.0.1:{self._port}: refused")
            failure.took_s = 0.0
            raise failure
        seen = self._seen(request, call, server.accept())
        turn = MemoryTurn(seen, call.clock, server._log, is_bodiless=request.method == "HEAD")
        reply = MemoryReply(server, turn, call, self.connections)
        try:
            reply.wait_head(head_wait_s)
        except BaseException:  # as the real transport: the reply must not stay open
            reply.close()
            raise
        return reply

    def close(self) -> None:
        """Nothing is kept open."""

    def _seen(self, request: UpstreamRequest, call: Call, number: int) -> SeenRequest:
        body = request.body if isinstance(request.body, bytes) else b"".join(request.body)
        headers = self._headers.copy()
        headers.update(request.headers)
        lines: Sequence[str] = call.trace_lines.decode("latin-1").split("\r\n")
        headers.update(line.split(": ", 1) for line in lines if line)
        if not isinstance(request.body, bytes) and request.length is None:
            headers["Transfer-Encoding"] = "chunked"
        elif body or request.method not in ("GET", "HEAD"):
            headers["Content-Length"] = str(len(body))
        raw_path = self._prefix + request.path
        return SeenRequest(
            request.method,
            unquote(raw_path.partition("?")[0]),
            raw_path,
            list(headers.items()),
            body,
            time.monotonic(),
            number,
            complete=True,
        )
