"""A look at the coordinator of a gateway, over its socket in the state directory,
as if a worker asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.leaks import open_descriptors

Frame = dict[str, Any]

#: Seconds in which what a client or a process has left behind is given back.
EXACT_AGAIN_S = 3.0

_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")


class Coordinator:
    """``with Coordinator(gateway.state_directory) as coordinator``: connected as one session more,
    which names no boxes. Raises OSError if there is none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Coordinator:
        self._socket.settimeout(2)
        # By way of a descriptor: paths of sockets are limited to 107 bytes.
        descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket.connect(f"/proc/self/fd/{descriptor}/coordinator.sock")
            self._ask({"op": "hello"}, "welcome")
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(descriptor)
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    @property
    def pid(self) -> int:
        """Its process."""
        found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(found)[0])

    def status(self) -> Frame:
        """Boxes, and what runs and waits."""
        status: Frame = self._ask({"op": "status", "id": 1}, "status")["status"]
        return status

    def _ask(self, frame: Frame, answer: str) -> Frame:
        data = json.dumps(frame).encode()
        self._socket.sendall(_LENGTH.pack(len(data)) + data)
        while True:  # among what it tells workers
            (size,) = _LENGTH.unpack(self._receive(_LENGTH.size))
            found: Frame = json.loads(self._receive(size))
            if found["op"] == answer:
                return found

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the coordinator has ended")
            data += piece
        return data


def coordinator_pid(gateway: Gateway) -> int:
    """The process of a gateway's coordinator; 0: there is none."""
    try:
        with Coordinator(gateway.state_directory) as coordinator:
            return coordinator.pid
    except OSError:
        return 0


def workers_connected(gateway: Gateway) -> int:
    """How many workers it has greeted: those have two descriptors of a Unix socket. None
    while it does not serve."""
    if not coordinator_pid(gateway):
        return 0
    lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]
    inodes = {f"socket:[{line.split()[6]}]" for line in lines}
    opened = [Counter(open_descriptors(pid).values()) for pid in gateway.worker_pids()]
    return sum(any(found[inode] > 1 for inode in inodes & found.keys()) for found in opened)


def join_coordinator(gateway: Gateway, token: str, body: Frame | None = None) -> None:
    """Let every worker connect to it, by requests with a token that has limits, or for a box with
    slots; then none of them has a slot any more, although workers keep those for a moment."""
    body = body or {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}

    def all_are_there() -> bool:
        with ThreadPoolExecutor(4) as pool:
            answers = list(
                pool.map(lambda _: gateway.ask("/api/chat", body, token=token), range(4))
            )
        assert {answer.status for answer in answers} == {200}, answers
        return workers_connected(gateway) >= gateway.workers

    wait_until(
        all_are_there, 60, lambda: f"only {workers_connected(gateway)} workers have the coordinator"
    )
    wait_until_counted(gateway, 0, 0)


def shared(gateway: Gateway) -> Frame:
    """Boxes, and what runs and waits, of all workers. Raises OSError if there is no coordinator."""
    with Coordinator(gateway.state_directory) as coordinator:
        return coordinator.status()


def counts(gateway: Gateway) -> tuple[int, int]:
    """How many requests of all workers hold a slot, and how many wait for one; none
    without a coordinator."""
    try:
        status = shared(gateway)
    except OSError:
        return 0, 0
    return len(status["running"]), len(status["waiting"])


def wait_until_counted(gateway: Gateway, running: int, waiting: int, seconds: float = 10) -> None:
    """Until so many hold a slot, and so many wait. Raises AssertionError if
    that is not so in time."""
    seen = (0, 0)

    def is_right() -> bool:
        nonlocal seen
        seen = counts(gateway)
        return seen == (running, waiting)

    wait_until(
        is_right,
        seconds,
        lambda: f"{seen[0]} hold a slot and {seen[1]} wait, not {running} and {waiting}",
    )


def kill_coordinator(gateway: Gateway) -> int:
    """Ends it without a warning; returns which process it was."""
    pid = coordinator_pid(gateway)
    assert pid, "there is no coordinator"
    os.kill(pid, signal.SIGKILL)
    return pid
