"""The process of the coordinator, one per state directory: `ollama-proxy
coordinator`, which workers start."""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gevent
from gevent import socket
from gevent.server import StreamServer

from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.link import SOCKET_NAME, Link, socket_path
from ollama_proxy.coordination.recording import Recording, Records
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.settings import RedisUrl

#: Held by the coordinator as long as it runs; it contains MARK as long as workers are connected.
LOCK_NAME, MARK = "coordinator.lock", b"1"

#: Seconds without a worker after which it ends, and those in which workers come back to a new one.
IDLE_S, SETTLE_S = 30.0, 1.0

#: Seconds between two ticks of the scheduler.
TICK_S = 0.2

#: Bits of the mode that the socket lacks: only its owner may connect.
_UMASK = 0o177


def start_coordinator(environ: Mapping[str, str] = os.environ) -> subprocess.Popen[bytes]:
    """Starts a coordinator, which ends at once if there is one. It reads the same
    configuration as this process."""
    root = Path(__file__).resolve().parents[2]
    search = os.pathsep.join(filter(None, (environ.get("PYTHONPATH"), str(root))))
    return subprocess.Popen(
        [sys.executable, "-m", "ollama_proxy.cli", "coordinator"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**environ, "PYTHONPATH": search},
    )


def run_coordinator(
    directory: Path,
    url: RedisUrl | None = None,
    *,
    records: Records | None = None,
    timezone: str = "UTC",
    idle_s: float = IDLE_S,
) -> bool:
    """Runs the coordinator until no worker has been connected for `idle_s` seconds; returns False
    if there is one already. `url`: of the Redis that has the state of all machines; None: it is
    kept here. `records`: what it does besides slots and limits; `timezone`: of days and months,
    until a worker names it. Raises OSError if the directory can't be used.
    """
    lock = os.open(
        directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        was_killed = os.pread(lock, len(MARK), 0) == MARK
        settle_s = SETTLE_S if was_killed else 0.0
        if url is None:
            coordinator = Coordinator(settle_s=settle_s, resettle_s=SETTLE_S)
        else:
            # 8 MB, which a gateway without Redis does without.
            shared = importlib.import_module("ollama_proxy.coordination.shared_store")
            coordinator = shared.build_shared_coordinator(
                directory, url.secret, settle_s=settle_s, resettle_s=SETTLE_S
            )
        coordinator.configure(QueueLimits(), timezone)
        recording = Recording(records, coordinator) if records else None
        _Service(directory, lock, coordinator, recording, idle_s).run()
        return True
    finally:
        os.close(lock)


@dataclass(slots=True)
class _Service:
    """The socket of a coordinator, and its life."""

    _directory: Path
    #: The descriptor of its lock file.
    _lock: int
    _coordinator: Coordinator
    _recording: Recording | None
    _idle_s: float
    #: A worker of a newer version has asked it to make room for another one.
    _is_replaced: bool = False

    def run(self) -> None:
        """Serves workers until none has been there for a while."""
        if self._recording:
            self._recording.start()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with socket_path(self._directory) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)  # one that a killed coordinator left
            before = os.umask(_UMASK)
            try:
                listener.bind(path)
            finally:
                os.umask(before)
        listener.listen(128)
        server = StreamServer(listener, self._serve_worker)
        server.start()
        # A service manager that ends everything at once must not take it from workers that
        # still answer requests.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            gevent.signal_handler(number, self._leave)
        used_s = time.monotonic()
        while not self._is_replaced and (
            self._coordinator.sessions or time.monotonic() - used_s < self._idle_s
        ):
            gevent.sleep(TICK_S)
            self._coordinator.tick()
            if self._coordinator.sessions:
                used_s = time.monotonic()
        with suppress(FileNotFoundError):
            (self._directory / SOCKET_NAME).unlink()
        server.stop()
        if self._recording:
            self._recording.records.close()

    def _serve_worker(self, connection: socket.socket, address: object) -> None:
        link = Link(connection)
        send, recording = link.send_later, self._recording
        session = self._coordinator.open(send)
        session.handlers["leave"] = self._make_room
        if recording:
            session.handlers["records"] = partial(recording.ask, send)
            session.handlers["records_settings"] = partial(recording.configure, send)
        self._mark()
        try:
            link.receive(session.handle)
        except (KeyError, TypeError, ValueError) as error:  # a worker of another version
            sys.stderr.write(
                f"ollama-proxy coordinator: a worker sent an invalid frame: {error!r}\n"
            )
            link.close()
        finally:
            if session.is_detached:
                gevent.sleep(SETTLE_S)
            session.close()
            if recording:
                recording.forget(send)
            self._mark()

    def _mark(self) -> None:
        """Notes whether workers may hold something, for the next coordinator
        if this one is killed."""
        if self._coordinator.sessions:
            os.pwrite(self._lock, MARK, 0)
        else:
            os.ftruncate(self._lock, 0)

    def _leave(self) -> None:
        self._idle_s = 0.0

    def _make_room(self, frame: Frame) -> None:
        """All workers announce to the next one what they hold, as if this one had been killed."""
        self._is_replaced = True
