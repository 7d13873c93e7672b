"""Hundreds of clients in one thread: each has a raw connection, may send byte for byte, and
may leave when it likes."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Self

from tests.rig.deadline import wait_until
from tests.rig.http_client import Answer, Stream

_TICK_S = 0.05


@dataclass(eq=False)
class Visitor:
    """One client and what became of it; times are monotonic, those to come count
    from the crowd's start."""

    #: Sent as soon as it is connected.
    data: bytes = b""
    #: Sent behind it, one byte per interval of the crowd.
    slowly: bytes = b""
    comes_s: float = 0.0
    #: How long after its coming it hangs up.
    stays_s: float = inf
    #: It hangs up by a TCP reset if it has something of an answer, for only then the request
    #: was read for certain.
    resets: bool = False

    began_at: float = 0.0
    #: When the connection was over, whoever ended it.
    over_at: float | None = None
    left: bool = False
    received: bytearray = field(default_factory=bytearray)

    @property
    def was_cut_after_s(self) -> float:
        """Seconds from its coming to the end that the other side made. Raises
        AssertionError if there was none."""
        assert self.over_at is not None and not self.left, (
            "the other side has not ended this connection"
        )
        return self.over_at - self.began_at

    def answer(self) -> Answer:
        """What it received, read as one answer. Raises ConnectionError if that is no whole head."""
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(self.received)
        with Stream(ours) as stream:
            body = stream.read_all(1)
            return Answer(stream.status, stream.headers, body, stream.complete)


class Crowd:
    """``with Crowd(port, visitors) as crowd``: they come and go as they are made; at the
    end all of them hang up."""

    def __init__(self, port: int, visitors: Sequence[Visitor], *, interval_s: float = 1.0) -> None:
        self.port = port
        self.visitors = list(visitors)
        self.interval_s = interval_s
        self._sockets: dict[Visitor, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._plan: list[tuple[float, int, Callable[[Visitor], None], Visitor]] = []
        self._order = itertools.count()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        now = time.monotonic()
        for visitor in self.visitors:
            self._at(now + visitor.comes_s, self._come, visitor)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join(10)

    def invite(self, visitor: Visitor) -> None:
        """One more, who comes at once."""
        self.visitors.append(visitor)
        self._at(time.monotonic(), self._come, visitor)

    @property
    def present(self) -> int:
        """How many are connected now."""
        return len(self._sockets)

    @property
    def over(self) -> list[Visitor]:
        """Those that have been here."""
        return [visitor for visitor in self.visitors if visitor.over_at is not None]

    def wait_present(self, count: int, seconds: float = 5) -> None:
        """Wait until so many are connected. Raises AssertionError if they are not in time."""
        wait_until(
            lambda: self.present >= count,
            seconds,
            lambda: f"only {self.present} of {count} are connected",
        )

    def wait_over(self, seconds: float) -> None:
        """Wait until all have been here. Raises AssertionError if some are left in time."""
        wait_until(
            lambda: len(self.over) == len(self.visitors),
            seconds,
            lambda: f"{self.present} are still connected",
        )

    def _run(self) -> None:
        while not self._is_over.is_set():
            for key, _ in self._selector.select(_TICK_S):
                self._receive(key.data)
            while self._plan and self._plan[0][0] <= time.monotonic():
                _, _, act, visitor = heapq.heappop(self._plan)
                act(visitor)
        for visitor in list(self._sockets):
            self._leave(visitor)
        self._selector.close()

    def _at(self, when: float, act: Callable[[Visitor], None], visitor: Visitor) -> None:
        heapq.heappush(self._plan, (when, next(self._order), act, visitor))

    def _come(self, visitor: Visitor) -> None:
        visitor.began_at = time.monotonic()
        try:
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(visitor.data)
        except OSError:
            visitor.over_at = time.monotonic()
            return
        sock.setblocking(False)
        self._sockets[visitor] = sock
        self._selector.register(sock, selectors.EVENT_READ, visitor)
        self._at(visitor.began_at + visitor.stays_s, self._leave, visitor)
        if visitor.slowly:
            self._at(visitor.began_at + self.interval_s, self._send_one, visitor)

    def _send_one(self, visitor: Visitor) -> None:
        sock = self._sockets.get(visitor)
        if sock is None:
            return
        with suppress(OSError):  # it is over; reading tells
            sock.send(visitor.slowly[:1])
        visitor.slowly = visitor.slowly[1:]
        if visitor.slowly:
            self._at(time.monotonic() + self.interval_s, self._send_one, visitor)

    def _receive(self, visitor: Visitor) -> None:
        try:
            data = self._sockets[visitor].recv(65536)
        except ConnectionError:
            data = b""
        visitor.received += data
        if not data:
            self._end(visitor)

    def _leave(self, visitor: Visitor) -> None:
        if visitor in self._sockets:
            if visitor.resets and visitor.received:
                linger = struct.pack("ii", 1, 0)
                self._sockets[visitor].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            visitor.left = True
            self._end(visitor)

    def _end(self, visitor: Visitor) -> None:
        sock = self._sockets.pop(visitor)
        self._selector.unregister(sock)
        sock.close()
        visitor.over_at = time.monotonic()
