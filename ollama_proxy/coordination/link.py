"""A connection that carries frames between a worker and the coordinator, over a socket
in the state directory."""

from __future__ import annotations

import os
import re
import socket as plain_socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import gevent
from gevent import socket

from ollama_proxy.coordination.frames import LENGTH_BYTES, Frame, FrameReader, encode_frame
from ollama_proxy.version import VERSION

SOCKET_NAME = "coordinator.sock"

#: Seconds in which the other side must accept and greet.
CONNECT_S = 1.0

#: How long a frame waits for the next one that nobody waits for, in seconds.
LATER_S = 0.002

#: Bytes that are read at once, and bytes that may wait for the other side before it counts as hung.
READ_BYTES, MAX_UNSENT_BYTES = 256 << 10, 128 << 20


class Link:
    """Frames over one socket. Sending never waits, so frames of several
    greenlets keep their order."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        # The same connection, as a socket that never waits.
        self._sender = connection.dup()
        self._sender.settimeout(0.0)
        self._unsent = bytearray()
        #: A greenlet sends the rest as soon as the other side reads.
        self._is_blocked = False
        self._loop = gevent.get_hub().loop
        self._is_due = False
        self._timer = self._loop.timer(LATER_S)
        self._is_timed = False
        self.is_closed = False

    def send(self, frame: Frame) -> None:
        """Sends a frame in this turn of the loop, together with those of other greenlets, or keeps
        it until the other side reads. What is sent to a closed link is lost."""
        self._add(frame)
        if not self._is_due:
            self._is_due = True
            self._loop.run_callback(self._flush)

    def send_later(self, frame: Frame) -> None:
        """Sends a frame with the next one, or in a moment: a system call that wakes another process
        costs more than everything else together."""
        self._add(frame)
        if not (self._is_timed or self._is_blocked or self.is_closed):
            self._is_timed = True
            self._timer.start(self._flush)

    def _add(self, frame: Frame) -> None:
        self._unsent += encode_frame(frame)
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self.close()

    def _flush(self) -> None:
        self._is_due = False
        if self.is_closed or self._is_blocked:
            return
        if self._is_timed:
            self._is_timed = False
            self._timer.stop()
        try:
            while self._unsent:
                del self._unsent[: self._sender.send(self._unsent)]
        except BlockingIOError:
            self._is_blocked = True
            gevent.spawn(self._send_rest)
        except OSError:
            self.close()

    def _send_rest(self) -> None:
        try:
            while self._unsent:
                socket.wait_write(self._sender.fileno())
                del self._unsent[: self._sender.send(self._unsent)]
        except OSError:
            self.close()
        finally:
            self._is_blocked = False

    def receive(self, handle: Callable[[Frame], None]) -> None:
        """Calls `handle` for each frame until the link ends. Raises ValueError if the other side
        sends something else."""
        reader = FrameReader()
        try:
            while data := self._socket.recv(READ_BYTES):
                for frame in reader.feed(data):
                    handle(frame)
                if self._unsent:
                    self._flush()
        except OSError:
            pass  # the same as an end
        finally:
            self.close()

    def send_last(self, frame: Frame) -> None:
        """Sends a frame if the other side reads now, and ends the link."""
        self._add(frame)
        self._flush()
        self.close()

    def close(self) -> None:
        """Ends the link, also for who waits in `receive`; a second call does nothing."""
        if self.is_closed:
            return
        self.is_closed = True
        self._timer.stop()
        self._timer.close()
        try:
            self._socket.shutdown(plain_socket.SHUT_RDWR)
        except OSError:
            pass
        self._sender.close()
        self._socket.close()


@contextmanager
def socket_path(directory: Path) -> Iterator[str]:
    """The path of the socket. By way of a descriptor: paths of sockets are limited to 107 bytes."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def connect(directory: Path) -> Link | None:
    """A link to the coordinator, which has answered; None: there is none, or it hangs. One
    of an older version is asked to leave, and may be gone; a newer one understands the
    frames of this version."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as opened:
        opened.callback(connection.close)  # also if the worker ends meanwhile
        connection.settimeout(CONNECT_S)
        try:
            with socket_path(directory) as path:
                connection.connect(path)
            connection.sendall(encode_frame({"op": "hello"}))
            head = connection.recv(LENGTH_BYTES)
            size = min(int.from_bytes(head, "big"), READ_BYTES)
            (welcome,) = FrameReader().feed(head + connection.recv(size))
            if welcome.get("op") != "welcome":
                return None
            # As numbers, so that "0.10.0" comes after "0.9.1".
            versions = (
                re.findall("[0-9]+", version) for version in (welcome.get("version", ""), VERSION)
            )
            its, own = (list(map(int, numbers)) for numbers in versions)
            if its < own:
                connection.sendall(encode_frame({"op": "leave"}))
                while connection.recv(READ_BYTES):
                    pass  # until it has gone
                return None
        except (OSError, ValueError):
            return None
        opened.pop_all()
    connection.settimeout(None)
    return Link(connection)
