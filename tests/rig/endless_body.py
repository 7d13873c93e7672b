"""A client that sends the body of a request without an end, as fast as the connection takes it."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from typing import Self

from tests.rig.gateway import Gateway
from tests.rig.http_client import HeaderItems, encode_request, request

#: Framings of a body without an end: its header, and what is sent again and again.
FRAMINGS: dict[str, tuple[dict[str, str], bytes]] = {
    "sized": ({"Content-Length": str(1 << 40)}, b" " * 65536),
    "chunked": ({"Transfer-Encoding": "chunked"}, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "chunks of one byte": ({"Transfer-Encoding": "chunked"}, b"1\r\n \r\n" * 10_000),
    "chunks with long extensions": (
        {"Transfer-Encoding": "chunked"},
        (b"1;x=" + b"y" * 8000 + b"\r\n \r\n") * 8,
    ),
    "sized, after 100 Continue": (
        {"Content-Length": str(1 << 40), "Expect": "100-continue"},
        b" " * 65536,
    ),
}


class EndlessBody:
    """Sends from the start of a `with` block to its end, or until the other side takes no more. It
    reads the response while it sends, or, if `reads` is false, only after its last byte."""

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        framing: str,
        headers: HeaderItems = (),
        *,
        reads: bool = True,
    ) -> None:
        more, self._piece = FRAMINGS[framing]
        given = {"Connection": "keep-alive", **dict(headers), **more}
        self._head = encode_request("gw", method, path, None, given)
        self._port, self._reads = port, reads
        #: Bytes of the body that the kernel has taken.
        self.sent = 0
        self.received = b""
        #: Seconds until nothing more was taken; None: the other side still takes.
        self.refused_after_s: float | None = None
        self._is_over = False
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over = True
        self._thread.join(10)

    @property
    def status(self) -> int:
        """Of the response, 0 for none; a 100 Continue is none."""
        *_, final = self.received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").partition(
            b"HTTP/1.1 "
        )
        return int(final[:3] or 0)

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as sock:
            sock.sendall(self._head)
            began = time.monotonic()
            try:
                self._send(sock)
            except OSError:  # reset, or nothing taken for 5 s
                self.refused_after_s = time.monotonic() - began
            self._receive(sock, wait_s=0.5)

    def _send(self, sock: socket.socket) -> None:
        rest = memoryview(self._piece)
        while not self._is_over:
            count = sock.send(rest)
            self.sent += count
            rest = rest[count:] or memoryview(self._piece)
            if self._reads:
                self._receive(sock)

    def _receive(self, sock: socket.socket, wait_s: float = 0) -> None:
        try:
            while select.select([sock], [], [], wait_s)[0] and (data := sock.recv(65536)):
                self.received += data
        except OSError:
            pass  # it was reset: nothing more comes


def slowest_livez_s(gateway: Gateway, seconds: float) -> float:
    """The longest time in which `/livez` of a gateway answered, asked one after the other
    for this long; without the time that its workers and the caller waited for a processor,
    which other processes had."""
    pids = [os.getpid(), *gateway.worker_pids()]
    slowest, ends_at = 0.0, time.monotonic() + seconds
    while time.monotonic() < ends_at:
        queued, began = scheduler_wait_s(pids), time.monotonic()
        assert request(gateway.url, path="/livez").status == 200
        took_s = time.monotonic() - began
        slowest = max(slowest, took_s - (scheduler_wait_s(pids) - queued))
    return slowest


def scheduler_wait_s(pids: Iterable[int]) -> float:
    """How long the main threads of these processes have waited for a processor so far."""
    return (
        sum(
            int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])
            for pid in pids
        )
        / 1e9
    )
