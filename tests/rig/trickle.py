"""A client that sends some bytes at once and the others one by one, each in
a segment of its own."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from threading import Thread
from typing import Self


class Trickle:
    """Sends while a `with` block runs, until everything is sent or the other side
    answers or takes no more."""

    def __init__(
        self, port: int, at_once: bytes, slowly: bytes, *, pause_s: float = 0.0002
    ) -> None:
        self._port, self._at_once, self._slowly, self._pause_s = port, at_once, slowly, pause_s
        #: How many of the bytes have been sent one by one.
        self.sent = 0
        self.received = b""
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join(30)

    def is_over(self) -> bool:
        """Whether it has stopped sending."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                sock.sendall(self._at_once)
                for byte in self._slowly:
                    sock.sendall(bytes([byte]))
                    self.sent += 1
                    time.sleep(self._pause_s)
                    if select.select([sock], [], [], 0)[0]:
                        break
                while select.select([sock], [], [], 1)[0] and (data := sock.recv(65536)):
                    self.received += data
            except OSError:
                pass  # nothing more is taken


def cpu_s(pid: int) -> float:
    """Seconds of CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
