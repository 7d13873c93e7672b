"""A TCP relay that spoils a connection on its way: delay, hold, rate, slice, cut, reset."""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress
from typing import Self

_READ = 65536
_BREAK_S = 0.05


class Lane:
    """What is done to the bytes of one direction; may be changed while they flow."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Bytes go through as they come."""
        #: Seconds that each read waits before it goes on.
        self.delay_s = 0.0
        #: Bytes per second; 0: as many as there are.
        self.rate = 0.0
        #: Sizes of the sends, again and again; empty: as the bytes came.
        self.slices: tuple[int, ...] = ()
        #: Connections end when so many bytes have gone this way; None: never.
        self.cut_after: int | None = None
        #: With `cut_after`: by a reset.
        self.reset_after = False


class Relay:
    """Listens on 127.0.0.1:`port` and passes on to `target` (a port of 127.0.0.1) and back."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.to_server, self.to_client = Lane(), Lane()
        #: How many connections came so far.
        self.accepted = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._ended = threading.Event()
        self._pairs: list[_Pair] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(5)

    @property
    def open(self) -> int:
        """How many connections are relayed now."""
        return sum(not pair.ended for pair in self._pairs)

    def clear(self) -> None:
        """Everything flows as it comes again."""
        self.to_server.clear()
        self.to_client.clear()
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Both ways: each piece goes on so much later."""
        self.to_server.delay_s = self.to_client.delay_s = seconds

    def rate(self, bytes_per_second: float) -> None:
        """Both ways: no faster than this."""
        self.to_server.rate = self.to_client.rate = bytes_per_second

    def slice(self, *sizes: int) -> None:
        """Both ways: in packets of these sizes, in turn."""
        self.to_server.slices = self.to_client.slices = sizes

    def hold(self) -> None:
        """Nothing goes on, either way, and no connection ends, until `release`."""
        self._flowing.clear()

    def release(self) -> None:
        """What was held goes on."""
        self._flowing.set()

    def cut(self) -> None:
        """End every connection as it is, with a FIN to both sides."""
        for pair in list(self._pairs):
            pair.end()

    def reset(self) -> None:
        """End every connection by a TCP reset to both sides."""
        for pair in list(self._pairs):
            pair.end(reset=True)

    def _spawn(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._spawn(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        self._flowing.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            _linger_off(client)
            client.close()
            return
        server.settimeout(None)
        pair = _Pair(client, server)
        self._pairs.append(pair)
        if self._ended.is_set():
            pair.end()
        self._spawn(self._pump, pair, client, server, self.to_server)
        self._pump(pair, server, client, self.to_client)

    def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket, lane: Lane) -> None:
        passed = 0
        try:
            while data := source.recv(_READ):
                for piece in _pieces(data, lane, passed):
                    self._flowing.wait()
                    self._pace(lane, len(piece))
                    pair.send(sink, piece)
                    passed += len(piece)
                    if lane.cut_after is not None and passed >= lane.cut_after:
                        pair.end(reset=lane.reset_after)
                        return
            self._flowing.wait()
            pair.send_end(sink)
        except OSError:
            pair.end(reset=True)
        finally:
            pair.one_way_is_over()

    def _pace(self, lane: Lane, size: int) -> None:
        seconds = lane.delay_s + (size / lane.rate if lane.rate else 0.0)
        if seconds:
            self._ended.wait(seconds)


class _Pair:
    """Both sides of a relayed connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._sockets = (client, server)
        self._ways = 2
        self._lock = threading.Lock()
        self._reset = False
        self.ended = False
        for sock in self._sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def end(self, *, reset: bool = False) -> None:
        """Neither side can send any more."""
        with self._lock:
            if self.ended:
                return
            self.ended, self._reset = True, reset
        for sock in self._sockets:
            with suppress(OSError):
                if reset:
                    _linger_off(sock)
                # A reset is made by the close; this wakes who reads, and says
                # nothing to the other side.
                sock.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)

    def send(self, sink: socket.socket, data: bytes) -> None:
        """All of it, or BrokenPipeError when the pair has ended meanwhile."""
        view, room = memoryview(data), select.poll()
        room.register(sink, select.POLLOUT)
        while view:
            if self.ended:
                raise BrokenPipeError
            if room.poll(_BREAK_S * 1000):
                with suppress(BlockingIOError):
                    view = view[sink.send(view, socket.MSG_DONTWAIT) :]

    def send_end(self, sink: socket.socket) -> None:
        """Nothing more comes this way; a pair that is reset says so by its close alone."""
        if not self._reset:
            sink.shutdown(socket.SHUT_WR)

    def one_way_is_over(self) -> None:
        """Closes both sockets when both ways are."""
        with self._lock:
            self._ways -= 1
            if self._ways:
                return
            self.ended = True
        for sock in self._sockets:
            sock.close()


def _linger_off(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _pieces(data: bytes, lane: Lane, passed: int) -> list[bytes]:
    """`data` in the lane's slices, and no further than it may go."""
    if lane.cut_after is not None:
        data = data[: max(0, lane.cut_after - passed)]
    if not lane.slices:
        return [data]
    found, at, turn = [], 0, 0
    while at < len(data):
        size = lane.slices[turn % len(lane.slices)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found
