"""One HTTP/1.1 connection to an upstream, a gevent socket and httptools' parser of answers; and
the timer that ends waits.

Each wait has its own limit, closing the socket from outside ends any wait, and one receive takes
all that has arrived. Comments describe the parser's behaviour where it matters (httptools 0.9).
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import struct
import termios
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from ssl import SSLWantReadError
from typing import Any

import gevent
import gevent.event
from gevent import monkey
from gevent import socket as gsocket
from gevent import ssl as gssl
from gevent.hub import Waiter
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import UpstreamCut, UpstreamError, UpstreamTimeout
from ollama_proxy.upstreams.call import Call, yield_to_loop

#: The loop's number for "can be read".
READ = 1

RECEIVE_BYTES = 65536
SEND_BYTES = 262144
#: Receives in a row that found data at once before other greenlets run.
FAIR_AFTER = 4

MAX_HEAD_BYTES = 65536
MAX_HEADERS = 200

#: Seconds between two checks for an early answer while a large body is being sent.
SEND_LOOK_S = 0.5

_poll = monkey.get_original("select", "poll")
_READABLE = select.POLLIN | select.POLLRDHUP | select.POLLHUP | select.POLLERR

#: How late a wait may be ended, in seconds.
TICK_S = 0.25


class Connection:
    """A connection and the answer that is being read from it."""

    def __init__(self, sock: gsocket.socket, wait_timer: WaitTimer) -> None:
        self._sock = sock
        self._wait_timer = wait_timer
        self._readable: Any = gevent.get_hub().loop.io(sock.fileno(), READ)
        self._ready = _poll()
        self._ready.register(sock.fileno(), _READABLE)
        self._parser = HttpResponseParser(self)
        self.used = 0
        self._streak = 0
        self._tls = isinstance(sock, gssl.SSLSocket)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_done = False
        self.complete = False
        #: The answer says where it ends; without that, the end of the connection is its end.
        self._framed = False
        self._keep = False
        #: Bytes are left over, or the connection ended: it can't be used again.
        self._must_close = False
        self._interim = False
        self._head_bytes = 0
        self._bodies: list[bytes] = []
        self._headless = False
        #: The other side's kernel has confirmed the whole request.
        self._is_confirmed = False
        #: The last receive took all that there was; an answer is not there yet when its
        #: request has just been sent.
        self._drained = not self._tls

    # Callbacks of the parser; it would replace an exception by one of its
    # own, so they only collect.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done and not self.complete:  # trailers come this way too
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.complete:
            self._must_close = True  # an answer without a request
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            self.headers.clear()
            return
        self.status, self.head_done = status, True
        self._keep = self._parser.should_keep_alive()
        self._framed = self._keep or any(
            name in (b"content-length", b"transfer-encoding") for name, _ in self.headers
        )
        self.complete = self._headless

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._bodies.append(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self.complete = True

    # Sending.

    def send(
        self,
        head: bytes,
        body: bytes | Iterable[bytes],
        call: Call,
        *,
        chunked: bool,
        headless: bool,
    ) -> None:
        """Sends one request. Returns early when the upstream answers before
        it has read everything."""
        self._reset()
        self._headless = headless
        self.used += 1
        if isinstance(body, bytes):
            self._send_bytes(head + body, call)
            return
        if not self._send_bytes(head, call):
            return
        for part in body:
            framed = b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
            if part and (not self._send_large(memoryview(framed), call) or self._is_answered()):
                self._must_close = True
                return
            yield_to_loop()  # if both sides are fast, neither reading nor sending ever waits
        if chunked:
            self._send_bytes(b"0\r\n\r\n", call)

    def _send_bytes(self, data: bytes, call: Call) -> bool:
        """Returns True when all was sent, False when an answer came first."""
        if len(data) <= SEND_BYTES:
            self._sock.settimeout(min(call.timeouts.idle_s, call.total_left_s()))
            # Nearly always sends all of it; `sendall` would first ask the kernel for its buffer.
            sent = self._sock.send(data)
            if sent < len(data):
                self._sock.sendall(data[sent:])
            return True
        return self._send_large(memoryview(data), call)

    def _send_large(self, data: memoryview, call: Call) -> bool:
        waited_s = 0.0
        self._sock.settimeout(SEND_LOOK_S)
        while data:
            call.check()
            try:
                data = data[self._sock.send(data[:SEND_BYTES]) :]
                waited_s = 0.0
            except TimeoutError:
                waited_s += SEND_LOOK_S
                if waited_s >= call.timeouts.idle_s:
                    raise UpstreamTimeout(
                        "The model server did not accept the request in time."
                    ) from None
            if data and self._is_answered():
                self._must_close = True
                return False
        return True

    def _is_answered(self) -> bool:
        """Whether an answer has begun although the request is not over. Reads what has arrived:
        over TLS it may be no part of an answer at all."""
        while self.has_input() and not self.head_done:
            limit_s = self._sock.gettimeout()
            self._sock.settimeout(0.0)
            received = self._receive_now()
            self._sock.settimeout(limit_s)
            if not received:
                break
        return self.head_done

    # Receiving.

    def receive_head(self, call: Call, first_byte_at: float, wait_s: float | None) -> bool:
        """Reads until status and headers are there; False after `wait_s` seconds without them."""
        give_up_at = inf if wait_s is None else call.clock.monotonic() + wait_s
        self._sock.settimeout(0.0)
        while not self.head_done:
            if not self._receive(call, first_byte_at, give_up_at):
                if call.clock.monotonic() < first_byte_at:
                    return False
                limit_s = call.timeouts.first_byte_s
                raise UpstreamTimeout(f"The model server did not begin to answer in {limit_s:g} s.")
        return True

    def receive_body(self, call: Call, idle_at: float, wait_s: float | None) -> bytes | None:
        """All of the body that has arrived; b"" at its end, None after
        `wait_s` seconds of silence."""
        give_up_at = inf if wait_s is None else call.clock.monotonic() + wait_s
        while not self._bodies and not self.complete:
            if not self._receive(call, idle_at, give_up_at):
                if call.clock.monotonic() < idle_at:
                    return None
                raise UpstreamTimeout(
                    f"The model server was silent for {call.timeouts.idle_s:g} s."
                )
        bodies, self._bodies = self._bodies, []
        return bodies[0] if len(bodies) == 1 else b"".join(bodies)

    def _receive(self, call: Call, limit_at: float, give_up_at: float) -> bool:
        """Takes whatever has arrived, or waits for it; returns False at the
        earlier of the two times.

        Raises UpstreamTimeout at the end of the call's total limit.
        """
        if call.ended or call.clock.monotonic() > call.ends_at:
            call.check()
        if not self._drained and self._receive_now():
            self._streak += 1
            if self._streak % FAIR_AFTER == 0:
                yield_to_loop()  # an upstream that never pauses would starve other greenlets
            return True
        self._streak, self._drained = 0, False
        if self._wait_timer.wait(self._readable, min(limit_at, give_up_at, call.ends_at)):
            return True
        call.check()
        return False

    def _receive_now(self) -> bool:
        """Takes and parses what has arrived, without waiting; returns False if nothing has."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, SSLWantReadError):
            return False
        except OSError as error:
            self._end_of_input(error)
            return True
        if not data:
            self._end_of_input(None)
            return True
        # Less than was asked for: there is nothing more to take, so the next receive begins with a
        # wait. What TLS has decrypted and not handed out yet would never end that wait.
        self._drained = len(data) < RECEIVE_BYTES and not self._tls
        if not self.head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # Bytes after a finished answer raise as well: they are no error of this answer.
            self._must_close = True
            if not self.complete:
                raise UpstreamError(
                    detail=f"bad HTTP from upstream: {type(error).__name__}"
                ) from None
        if (
            not self.head_done
            and self._head_bytes > MAX_HEAD_BYTES
            or len(self.headers) > MAX_HEADERS
        ):
            raise UpstreamError(detail="upstream headers over the limit")
        return True

    def _end_of_input(self, cause: OSError | None) -> None:
        self._must_close = True
        if cause is None:
            # Bytes that the other side's kernel has not confirmed.
            (unconfirmed,) = struct.unpack(
                "i", fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
            )
            self._is_confirmed = not unconfirmed
        if not self.head_done:
            raise UpstreamCut(detail=f"upstream closed before its answer: {cause}") from cause
        if self._framed or cause is not None:
            raise UpstreamCut(detail=f"upstream closed inside its answer: {cause}") from cause
        self.complete = True

    # Keeping and closing.

    def has_input(self) -> bool:
        """Whether something can be read: bytes, an end or an error."""
        return bool(self._ready.poll(0))

    @property
    def reusable(self) -> bool:
        """Whether the answer is complete with nothing after it, and both
        sides keep the connection."""
        return self.complete and self._keep and not self._must_close and not self._headless

    @property
    def was_stale(self) -> bool:
        """Whether it was used before and its end has crossed this request: nothing of an
        answer has arrived, and the upstream can't have read the request, because its kernel
        has not confirmed all of it."""
        return self.used > 1 and not (self._head_bytes or self.head_done or self._is_confirmed)

    def abort(self) -> None:
        """Wakes the greenlet that waits on the socket, which then closes it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(gsocket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket."""
        self._readable.close()
        with contextlib.suppress(OSError):
            self._sock.close()


@dataclass(slots=True, eq=False)
class WaitTimer:
    """Ends the waits of a worker at their time, at most a quarter of a second late: a timer for
    each wait would cost more than the receive that it guards."""

    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    _waiting: dict[Waiter[bool], float] = field(default_factory=dict)
    _busy: gevent.event.Event = field(default_factory=gevent.event.Event)
    _greenlet: gevent.Greenlet[..., None] | None = None
    _closed: bool = False

    def close(self) -> None:
        """Ends its greenlet as soon as nothing waits; a later wait starts another one."""
        self._closed = True
        self._busy.set()

    def wait(self, watcher: Any, until: float) -> bool:
        """Waits for an event of a watcher of the loop; returns False if the monotonic
        time `until` came first."""
        waiter: Waiter[bool] = Waiter(gevent.get_hub())
        self._waiting[waiter] = until
        if len(self._waiting) == 1:
            if self._greenlet is None:
                self._greenlet = gevent.spawn(self._run)
            self._busy.set()
        watcher.start(waiter.switch, True)
        try:
            return waiter.get()
        finally:
            watcher.stop()
            del self._waiting[waiter]

    def _run(self) -> None:
        # Only the loop itself may switch to a waiting greenlet; a waiter that was
        # woken meanwhile ignores it.
        wake = gevent.get_hub().loop.run_callback
        while self._waiting or not self._closed:
            self._busy.wait()
            self.clock.sleep(TICK_S)
            now = self.clock.monotonic()
            for waiter, until in self._waiting.items():
                if until <= now:
                    wake(waiter.switch, False)
            if not (self._waiting or self._closed):
                self._busy.clear()
        self._greenlet = None
