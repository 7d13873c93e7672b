"""A real redis-server on a port of its own, which keeps nothing on disk and which a test can
kill, pause and flush."""

from __future__ import annotations

import signal
import socket
import subprocess

from tests.rig.deadline import wait_until
from tests.rig.gateway import free_port
from tests.rig.programs import require_program

_SETTINGS = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")


class RedisServer:
    """Redis on 127.0.0.1:`port` until `stop()`; `start()` after `kill()` or `stop()`
    brings an empty one back."""

    def __init__(self, password: str | None = None) -> None:
        self.program = require_program("redis-server")
        self.port = free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisServer:
        """Starts it and waits until it answers."""
        command = [
            self.program,
            "--port",
            str(self.port),
            *_SETTINGS,
            "--requirepass",
            self._password or "",
        ]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.is_answering, 5, "redis-server does not answer")
        return self

    @property
    def pid(self) -> int:
        """The process; raises AssertionError if it was not started."""
        assert self._process is not None, "redis-server was not started"
        return self._process.pid

    def is_answering(self) -> bool:
        """Whether it answers within half a second."""
        try:
            return self.ask("PING", timeout_s=0.5) == "+PONG"
        except OSError:
            return False

    def ask(self, *words: str, timeout_s: float = 5) -> str:
        """The first line of the reply to a command, such as `+OK`, on a connection of its own."""
        lines = [f"AUTH {self._password}\r\n"] if self._password else []
        lines.append(" ".join(words) + "\r\n")
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall("".join(lines).encode())
            with connection.makefile("r", newline="\r\n") as replies:
                return [replies.readline() for _ in lines][-1].rstrip("\r\n")

    def flush(self) -> None:
        """Removes everything that it stores; connections stay."""
        assert self.ask("FLUSHALL") == "+OK"

    def cut(self) -> None:
        """Ends every connection of its clients, subscribers included; it goes on."""
        for kind in ("normal", "pubsub"):
            self.ask("CLIENT", "KILL", "TYPE", kind)

    def pause(self) -> None:
        """Stops it as it is (SIGSTOP): the kernel still takes connections and bytes,
        and nothing is answered."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        self._send(signal.SIGCONT)
        wait_until(self.is_answering, 5, "redis-server does not answer after SIGCONT")

    def kill(self) -> None:
        """Ends it without notice (SIGKILL), and with it everything that it stored."""
        self._send(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """Ends it, even if it is paused; nothing happens if it does not run."""
        if self._process is None:
            return
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)
        self._reap()

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None, "redis-server was not started"
        self._process.send_signal(number)

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait(timeout=10)
        self._process = None

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()
