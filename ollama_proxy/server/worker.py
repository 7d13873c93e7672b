"""gunicorn's gevent worker with a connection loop of its own: `connection` reads requests and
writes responses, within the limits of gunicorn's settings. gunicorn remains the master: sockets,
processes, signals, reloads.

Errors of HTTP itself are answered in the error shape of the client's dialect, and neither answer
nor log quote the request; there is room for a health check however many connections are open; and
the worker's end cuts no response without saying so.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from http.client import responses
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIEnvironment
from wsgiref.util import FileWrapper

import gevent
from gevent.socket import AF_UNIX, SOCK_STREAM, socket
from gunicorn import SERVER_SOFTWARE
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

from ollama_proxy.dialects import DIALECTS, Dialect, find_dialect
from ollama_proxy.errors import GatewayError, InternalError, Overloaded
from ollama_proxy.gateway import capacity
from ollama_proxy.server.connection import Connection
from ollama_proxy.server.connections import Connections
from ollama_proxy.server.incoming import HeadLimits, InvalidRequest
from ollama_proxy.server.process_state import PROCESS
from ollama_proxy.server.request import is_trusted, new_request_id, plain_address

log = logging.getLogger(__name__)

#: For tests: a variable with a directory in which each worker listens on a socket of its own as
#: well, so that a request reaches exactly the worker that it is meant for.
OWN_SOCKETS = "OLLAMA_PROXY_WORKER_SOCKETS"

#: Seconds for which new connections are still taken once the end has begun: whoever asks
#: `/readyz` learns of it.
NOTICE_S = 1.0

#: Seconds without a request after which a connection is closed at the end.
SETTLED_S = 2.0

#: Seconds before its master kills it in which a worker cuts what has not finished, so that
#: clients can still be told.
TERMINATION_GRACE_S = 3

#: Seconds after which a refused client may try again.
RETRY_S = 1

#: How a connection fails if the client has gone.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


def listen_alone(directory: Path) -> socket:
    """Return a listening socket of this process alone, `worker-<pid>.sock`, mode 0600."""
    path = directory / f"worker-{os.getpid()}.sock"
    # It gets its name once it listens, so that a client that finds it can connect.
    unnamed = path.with_suffix(".new")
    unnamed.unlink(missing_ok=True)
    own = socket(AF_UNIX, SOCK_STREAM)
    own.bind(str(unnamed))
    unnamed.chmod(0o600)
    own.listen()
    unnamed.rename(path)
    return own


class ServerLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log, without the texts of exceptions: those may quote a prompt or a token."""

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Says where it happened, in the gateway's own log."""
        log.error(
            "internal_error", exc_info=sys.exc_info()[1], extra={"fields": {"server": msg[:80]}}
        )


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves the gateway; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_quitting = False
        self._lifecycle = PROCESS.lifecycle
        super().__init__(*args, **kwargs)
        self.alive: bool
        self.sockets: list[Any]
        cfg = self.cfg
        self._keeps_alive = bool(cfg.keepalive)
        self._connections = Connections(
            self.worker_connections, waiting_s=cfg.keepalive or SETTLED_S
        )
        self.worker_connections += capacity.slack(self.worker_connections)
        self._limits = HeadLimits(
            cfg.limit_request_line, cfg.limit_request_field_size, cfg.limit_request_fields
        )
        self._trusted = tuple(cfg.forwarded_allow_ips)
        self._dialects: tuple[Dialect, ...] = DIALECTS
        self._environ: WSGIEnvironment = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if cfg.is_ssl else "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": cfg.workers > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def load_wsgi(self) -> None:
        """Takes the application, and its dialects for errors that it never sees; another
        application has none."""
        super().load_wsgi()
        parts = getattr(self.wsgi, "extensions", {}).get("ollama_proxy", {})
        self._dialects = parts.get("dialects", DIALECTS)

    # Connections.

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection, as long as it lasts."""
        # What all requests on it have in common; a unix socket has neither addresses nor ports.
        name = listener.getsockname()
        server = name if isinstance(name, tuple) else ("localhost", 80)
        environ = self._environ | {
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1]),
            "REMOTE_ADDR": "",
        }
        if isinstance(addr, tuple):
            environ |= {"REMOTE_ADDR": addr[0], "REMOTE_PORT": str(addr[1])}
        connection = Connection(client, environ)
        try:
            if not self._connections.enter(connection):
                self._lifecycle.refused_connections += 1
                connection.send(
                    self._encode_error(Overloaded(retry_after_s=RETRY_S), {"PATH_INFO": "/"})
                )
            elif self._serve(connection):
                self._connections.linger(connection)
        except OSError:
            pass  # the client has gone
        finally:
            self._connections.leave(connection)
            connection.close()

    def _serve(self, connection: Connection) -> bool:
        """Answers the requests of a connection, one after the other. True if it must linger: the
        client may still be sending what is not going to be read."""
        try:
            while self._serve_next(connection):
                pass
            return connection.request is not None and not connection.request.body.is_complete
        except (gevent.GreenletExit, SystemExit):
            pass  # the worker ends
        except OSError as error:
            if error.errno not in _GONE:
                self.log.exception("Socket error processing request.")
        except Exception as error:  # whatever the application raised, or an invalid request
            return self._refuse(connection, error)
        return False

    def _serve_next(self, connection: Connection) -> bool:
        """Answers the next request of a connection. False: there is none,
        or it was the last one."""
        request = connection.read_request(self._limits)
        if request is None:
            return False
        if request.environ.get("HTTP_X_FORWARDED_PROTO") == "https":
            address = plain_address(request.environ["REMOTE_ADDR"])
            # Proxies say which protocol the client used; whoever comes by a unix socket is one.
            if not address or "*" in self._trusted or is_trusted(address, self._trusted):
                request.environ["wsgi.url_scheme"] = "https"
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        is_last = self._lifecycle.is_draining or not self.alive or not self._keeps_alive
        self._connections.begin(connection)
        try:
            return connection.respond(request, self.wsgi, is_last=is_last)
        finally:
            self._connections.end(connection)

    def _refuse(self, connection: Connection, error: Exception) -> bool:
        """Answers a request that never reached the application, or whose application failed. False:
        it has had a part of a response, whose end it must miss."""
        public = error if isinstance(error, InvalidRequest) else InternalError()
        request = connection.request
        environ = request.environ_for_error() if request else {"PATH_INFO": "/"}
        client = plain_address(environ.get("REMOTE_ADDR", ""))
        fields = {"client": client, "status": public.status, "error": type(error).__name__}
        if public is not error:
            log.error("internal_error", exc_info=error, extra={"fields": fields})
            if connection.response is not None and connection.response.is_head_sent:
                return False
        else:
            log.warning("bad_http", extra={"fields": fields})
        connection.send(self._encode_error(public, environ))
        return True

    def _encode_error(self, error: GatewayError, environ: WSGIEnvironment) -> bytes:
        """The whole response, in the error shape of the client's dialect."""
        body = find_dialect(environ, self._dialects).errors.render_error(error, new_request_id())
        wait = "" if error.retry_after_s is None else f"Retry-After: {error.retry_after_s}\r\n"
        head = (
            f"HTTP/1.1 {error.status} {responses[error.status]}\r\nConnection: "
            "close\r\nCache-Control: no-store\r\n"
            f"{wait}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body

    # The beginning and the end.

    def init_process(self) -> None:
        """The process of the worker begins."""
        limit_s = self.cfg.graceful_timeout
        self.cfg.set("graceful_timeout", limit_s - min(TERMINATION_GRACE_S, limit_s // 2))
        super().init_process()

    def patch(self) -> None:
        """Make the sockets that it listens on, after those of its master."""
        super().patch()
        if directory := os.environ.get(OWN_SOCKETS):
            self.sockets.append(listen_alone(Path(directory)))

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: not ready at once, then no new connections, then whatever is
        still being answered."""
        if not self._lifecycle.is_draining:
            self._lifecycle.is_draining = True
            gevent.spawn(self._drain)

    def handle_quit(self, sig: int, frame: object) -> None:
        """SIGINT, SIGQUIT: no time for anything but last words. A terminal sends it to all
        processes, and then the master sends it once more; only the first one counts."""
        if self._is_quitting:
            return
        self._is_quitting = self._lifecycle.is_draining = True
        self._lifecycle.cut()
        super().handle_quit(sig, frame)

    def _drain(self) -> None:
        ends_at = time.monotonic() + self.cfg.graceful_timeout
        log.warning(
            "worker_draining",
            extra={"fields": {"pid": self.pid, "connections": len(self._connections)}},
        )
        self._lifecycle.refuse_waiting()
        gevent.sleep(NOTICE_S)
        self.alive = False
        gevent.sleep(max(0.0, ends_at - time.monotonic()))
        if cut := self._lifecycle.cut():
            log.warning("answers_cut", extra={"fields": {"pid": self.pid, "requests": cut}})

    def notify(self) -> None:
        """Once a second: a sign of life for the master, and a look whether there still is one."""
        self.tmp.notify()
        if self.ppid != os.getppid():
            # Nobody would supervise it, and a new master wants its place; those that it
            # answers are not to blame.
            self.handle_exit(0, None)
        self._connections.close_overdue()
        if not self.alive:
            self._connections.close_waiting(SETTLED_S)
