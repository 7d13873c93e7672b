"""gunicorn's gevent worker, with errors of HTTP itself said in JSON and without quoting the request, with room for
whoever asks something, and with an end that cuts nobody silently.

gunicorn's own pages are HTML, and its log lines quote addresses, which may hold a token.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
import traceback
from http.client import responses
from typing import Any

import gevent
from gunicorn.glogging import Logger
from gunicorn.http import errors as http
from gunicorn.http.message import Request
from gunicorn.util import close, write_nonblock
from gunicorn.workers.ggevent import GeventWorker

from ollama_proxy.dialects import find_dialect
from ollama_proxy.errors import BadRequest, GatewayError, InternalError, Overloaded
from ollama_proxy.gateway import WORKER, capacity
from ollama_proxy.server.connections import Connections
from ollama_proxy.server.incoming import ClientRequest, ClientRequests
from ollama_proxy.server.request import plain_address, request_id
from ollama_proxy.upstreams import yield_to_loop

log = logging.getLogger(__name__)

#: Seconds for which new connections are still taken once the end has begun: whoever asks `/readyz` learns of it.
NOTICE_S = 1.0

#: Seconds without a request after which a connection is closed at the end.
SETTLED_S = 2.0

#: Seconds before its master kills it in which a worker cuts what has not finished, so that clients can still be told.
TERMINATION_GRACE_S = 3

#: Seconds after which a refused client may try again.
RETRY_S = 1

#: Requests after which those get a turn that wait for a socket.
FAIR_AFTER = 8

#: How a write fails if the client has gone.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)

#: Most specific first; what is not here is no fault of the client: 500.
STATUSES: tuple[tuple[type[Exception], int, str], ...] = (
    (http.LimitRequestLine, 414, "The address of the request is too long."),
    (http.LimitRequestHeaders, 431, "The headers of the request are too large."),
    (http.UnsupportedTransferCoding, 501, "The transfer coding of the request is not supported."),
    (http.ExpectationFailed, 417, "The expectation of the request can't be met."),
    (http.ConfigurationProblem, 400, "The request can't be read."),
    (http.ParseException, 400, "The request is not valid HTTP."),
)


class ServerLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log, without the texts of exceptions: those may quote a prompt or a token."""

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Says where it happened, in the gateway's own log."""
        log.error("internal_error", exc_info=sys.exc_info()[1], extra={"fields": {"server": msg[:80]}})


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves the gateway; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = Connections[Any](self.worker_connections)
        self.worker_connections += capacity.slack(self.worker_connections)
        #: How long a connection may wait for a request's head.
        self._head_s = self.cfg.keepalive
        self._served = 0

    # Connections.

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection, as long as it lasts."""
        if not self._connections.enter(client):
            with contextlib.suppress(OSError), contextlib.closing(client):
                write_nonblock(client, answer(Overloaded(retry_after_s=RETRY_S), "/"))
            return
        try:
            client.setblocking(1)
            if self._serve(listener.getsockname(), client, addr):
                self._connections.linger(client)
        finally:
            self._connections.leave(client)
            close(client)

    def _serve(self, listener_name: Any, client: Any, addr: Any) -> bool:
        """Answers the requests of a connection, one after the other. True if it must linger: the client may still be
        sending what is not going to be read."""
        requests = ClientRequests(self.cfg, client, addr)
        request: ClientRequest | None = None
        try:
            while True:
                # Also while the worker ends, when gunicorn's own limit is 0. False: no exception leaves the block.
                with gevent.Timeout(self._head_s, False):  # type: ignore[arg-type]
                    request = next(requests)
                if request is None:
                    return False
                self.handle_request(listener_name, request, client, addr)
                request = None
        except (StopIteration, http.NoMoreData):
            return request is not None and request.has_unread_body
        except (gevent.GreenletExit, SystemExit):
            return False  # the worker ends, and nobody has asked for anything here
        except OSError as error:
            if error.errno not in _GONE:
                self.log.exception("Socket error processing request.")
            return False
        except BaseException as error:  # whatever the parser raises, or the application
            self.handle_error(request, client, addr, error)
            return True

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """One request on it."""
        self._connections.begin(sock)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            self._connections.end(sock)
            # Whoever sends many requests in advance waits between them like everybody else.
            self._served += 1
            if self._served % FAIR_AFTER == 0:
                yield_to_loop()

    # The end.

    def init_process(self) -> None:
        """The process of the worker begins."""
        limit_s = self.cfg.graceful_timeout
        self.cfg.set("graceful_timeout", limit_s - min(TERMINATION_GRACE_S, limit_s // 2))
        super().init_process()

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: not ready at once, then no new connections, then whatever is still being answered."""
        if not WORKER.is_draining:
            WORKER.is_draining = True
            gevent.spawn(self._drain)

    def handle_quit(self, sig: int, frame: object) -> None:
        """SIGINT, SIGQUIT: no time for anything but last words."""
        WORKER.is_draining = True
        WORKER.cut()
        super().handle_quit(sig, frame)

    def _drain(self) -> None:
        ends_at = time.monotonic() + self.cfg.graceful_timeout
        log.warning("worker_draining", extra={"fields": {"pid": self.pid, "connections": len(self._connections)}})
        # From now on each answer says that it is the last one on its connection.
        self.cfg.set("keepalive", 0)
        gevent.sleep(NOTICE_S)
        self.alive = False
        gevent.sleep(max(0.0, ends_at - time.monotonic()))
        if cut := WORKER.cut():
            log.warning("answers_cut", extra={"fields": {"pid": self.pid, "requests": cut}})

    def notify(self) -> None:
        """Once a second: a sign of life for the master, and a look whether there still is one."""
        self.tmp.notify()
        if self.ppid != os.getppid():
            # Nobody would supervise it, and a new master wants its place; those that it answers are not to blame.
            self.handle_exit(0, None)
        if not self.alive:
            self._connections.close_waiting(SETTLED_S)

    # Errors.

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request that never reached the application, or whose application failed without an answer."""
        error = public_error(exc)
        fields = {"client": plain_address(addr[0] if addr else ""), "status": error.status, "error": type(exc).__name__}
        if error.status == 500:
            log.error("internal_error", exc_info=exc, extra={"fields": fields})
        else:
            log.warning("bad_http", extra={"fields": fields})
        with contextlib.suppress(OSError):
            write_nonblock(client, answer(error, getattr(req, "path", None) or _path_half_read(exc)))


def _path_half_read(exc: BaseException) -> str:
    """The path of a request whose head can't be read to its end; gunicorn keeps it to itself."""
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        path = getattr(frame.f_locals.get("self"), "path", None)
        if isinstance(frame.f_locals.get("self"), Request) and path:
            return str(path)
    return "/"


def public_error(exc: BaseException) -> GatewayError:
    """What the client may be told."""
    ours = isinstance(exc, http.InvalidResponseHeader | http.InvalidResponseHeaderName)
    for kind, status, text in STATUSES:
        if isinstance(exc, kind) and not ours:
            error = BadRequest(text)
            error.status = status
            return error
    return InternalError()


def answer(error: GatewayError, path: str) -> bytes:
    """The whole HTTP answer, in the error shape that the path promises."""
    body = find_dialect({"PATH_INFO": path}).errors.render_error(error, request_id(None))
    wait = "" if error.retry_after_s is None else f"Retry-After: {error.retry_after_s}\r\n"
    head = (
        f"HTTP/1.1 {error.status} {responses[error.status]}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        f"{wait}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
